"""Log-densities of images under a denoiser, in nats over [-1, 1]; the table says of which kind."""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.noise_process import Level
from methods.diffusion.ode import Parts, dormand_prince
from methods.diffusion.process import DiscreteVP
from methods.diffusion.samplers import Noise, added_variance

NOISE_ALPHA = 0.02
"""``alpha`` from which on ``x_t`` counts as the prior, to 2e-4 nats a dimension: sigma / alpha is then 50 or more."""


class Likelihood(ABC):
    """``log p(x)`` in nats, ``(B,)``, of images ``(B, C, H, W)``.

    ``kind`` says what the number is: ``exact``, a ``bound`` from below, an unbiased ``estimate``, or ``unnormalised``,
    of a density that may have any mass and ranks with no other.
    ``nfe`` counts the network evaluations an image costs, about, if each image takes its own; ``dequantised`` says
    whether it scores images with dequantisation noise (a density) or the grey levels themselves (a probability, given
    as the density of its bin).
    """

    kind: Literal["exact", "bound", "estimate", "unnormalised"]
    nfe: int
    dequantised: bool = True

    @abstractmethod
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Log-density of each image; ``noise`` feeds what is stochastic in it."""

    def counted(self, x: Tensor, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        """Log-density of each image, and the network evaluations that it took, ``(B,)``."""
        return self(x, noise), torch.full((len(x),), self.nfe)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the solver, for the protocol of records."""
        return {"nfe": self.nfe}


def _normal_log_prob(x: Tensor, scale: float = 1.0) -> Tensor:
    d = x[0].numel()
    return -0.5 * (x / scale).square().flatten(1).sum(1) - d * (0.5 * math.log(2 * math.pi) + math.log(scale))


def _eps_and_divergence(
    denoiser: Denoiser, u: Tensor, alpha: Tensor | float, t: Tensor, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """``eps`` at ``x_t = alpha u``, and the probe's estimate of its divergence in ``u``, ``(B,)``."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        eps = denoiser.eps(alpha * u, t)
        (pulled,) = torch.autograd.grad((eps * probe).sum(), u)
    return eps.detach(), (pulled * probe).flatten(1).sum(1)


def _probe(x: Tensor, noise: Noise | None) -> Tensor:
    """A Rademacher draw like ``x``."""
    return (torch.randn_like(x) if noise is None else noise()).sign()


class ProbabilityFlow(Likelihood):
    """Change of variables along the probability-flow ODE, its divergence estimated with one Rademacher probe an image.

    In ``u = x / alpha`` and ``s = sigma / alpha`` the ODE is ``du / ds = eps``, on even steps in ``log s``. A step
    extrapolates the last two slopes, evaluates there, and ends by the trapezoidal rule: order two, one evaluation. The
    last level is the first with ``alpha <= NOISE_ALPHA``: beyond it a discrete process may take one step to a noise 30
    times stronger, where the slope of a trained network is extrapolated to images that it never saw.

    Source: Song et al. 2021 (arXiv:2011.13456), Eq. 39 and 40.

    Args:
        denoiser: Whose density.
        steps: Steps of the solver, a network evaluation and an input gradient each; a discrete process leaves out
            those that are finer than its levels.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(), data_std=0.5)  # of images N(0, 0.25 I)
        >>> log_prob = ProbabilityFlow(gaussian, steps=60)(torch.zeros(1, 1, 2, 2))
        >>> round(log_prob.item(), 1), round(-2 * math.log(2 * math.pi / 4), 1)
        (-0.9, -0.9)
    """

    kind = "estimate"

    def __init__(self, denoiser: Denoiser, steps: PositiveInt = 60) -> None:
        self.denoiser, self.steps = denoiser, steps

    @property
    def nfe(self) -> int:
        """One evaluation at each end of a step."""
        return len(self._levels())

    def _levels(self) -> list[Level]:
        process = self.denoiser.process
        span = torch.tensor([process.t_min, process.t_max], dtype=torch.float64, device="cpu")
        ends = -0.5 * process.log_snr(span)
        log_ratios = torch.linspace(float(ends[0]), float(ends[1]), self.steps + 1, dtype=torch.float64, device="cpu")
        levels = process.levels(process.time(-2 * log_ratios).unique_consecutive())
        first = next((i for i, level in enumerate(levels) if level.alpha <= NOISE_ALPHA), len(levels))
        return levels[: first + 1]

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        process, levels = self.denoiser.process, self._levels()
        probe = _probe(x, noise)
        d = x[0].numel()

        def rates(u: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            """``du / ds`` and its divergence times ``s``, which is nearly ``d`` in strong noise."""
            eps, divergence = _eps_and_divergence(self.denoiser, u, level.alpha, level.times(u), probe)
            return eps, level.noise_ratio * divergence

        u, gained, curvature = x / levels[0].alpha, 0.0, 0.0
        eps, divergence = rates(u, levels[0])
        for low, high in pairwise(levels):
            width = high.noise_ratio - low.noise_ratio
            eps_high, divergence_high = rates(u + width * (eps + 0.5 * width * curvature), high)
            u = u + 0.5 * width * (eps + eps_high)
            gained = gained + 0.5 * math.log(high.noise_ratio / low.noise_ratio) * (divergence + divergence_high)
            curvature = (eps_high - eps) / width
            eps, divergence = eps_high, divergence_high

        end = levels[-1]
        prior = _normal_log_prob(end.alpha * u, process.prior_scale)
        return prior + gained + d * (math.log(end.alpha) - math.log(levels[0].alpha))


class AdaptiveProbabilityFlow(Likelihood):
    """``ProbabilityFlow`` to a tolerance: each image by as many steps as it needs, in ``log s``.

    ``rtol`` and ``atol`` bound the error of a step, in the pixels of ``u`` and in the log-density per dimension, in
    nats: of 3072 pixels and their density as one vector, as in the source, the density would hardly count. Between the
    levels of a discrete process the network is told the noise level that there is.

    Source: Song et al. 2021 (arXiv:2011.13456), App. D.2; the method of its code is that of ``dormand_prince``.

    Args:
        denoiser: Whose density; on a discrete process one that can be asked between its levels.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        ValueError: If the denoiser knows discrete levels alone.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(), data_std=0.5)  # of images N(0, 0.25 I)
        >>> log_prob = AdaptiveProbabilityFlow(gaussian)(torch.zeros(1, 1, 2, 2))
        >>> round(log_prob.item(), 1), round(-2 * math.log(2 * math.pi / 4), 1)
        (-0.9, -0.9)
    """

    kind = "estimate"
    nfe = 200  # of such networks in (c) Table 3; what it really took is counted

    def __init__(self, denoiser: Denoiser, rtol: PositiveFloat = 1e-5, atol: PositiveFloat = 1e-5) -> None:
        process = denoiser.process.continuous()
        self.denoiser = denoiser if process is denoiser.process else denoiser.on(process)
        self.rtol, self.atol = rtol, atol

    @property
    def settings(self) -> dict[str, Any]:
        return {"rtol": self.rtol, "atol": self.atol}

    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return self.counted(x, noise)[0]

    @torch.no_grad()
    def counted(self, x: Tensor, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        process, d = self.denoiser.process, x[0].numel()
        probe = _probe(x, noise)
        first, last = process.levels(torch.tensor([process.t_min, process.t_max], dtype=torch.float64))
        time_type = torch.promote_types(x.dtype, torch.float32)

        def rates(state: Parts, log_ratio: Tensor, rows: Tensor) -> Parts:
            """``du / d log s``, and its divergence per dimension."""
            u, s = state[0], log_ratio.exp().to(x.dtype)
            t = process.time(-2 * log_ratio).clamp(process.t_min, process.t_max)
            alpha = process.alpha(t).to(x.dtype).view(-1, 1, 1, 1)
            eps, divergence = _eps_and_divergence(self.denoiser, u, alpha, t.to(time_type), probe[rows])
            return s.view(-1, 1, 1, 1) * eps, s * divergence / d

        ends = math.log(first.noise_ratio), math.log(last.noise_ratio)
        state = x / first.alpha, x.new_zeros(len(x))
        (u, gained), nfe = dormand_prince(rates, state, *ends, self.rtol, self.atol)
        prior = _normal_log_prob(last.alpha * u, process.prior_scale)
        return prior + d * (gained + math.log(last.alpha) - math.log(first.alpha)), nfe


class VariationalBound(Likelihood):
    """Evidence lower bound of a DDPM chain on grey levels, every level visited once with one draw.

    The decoder is the Gaussian mass of a pixel's bin, open at the two edge bins; its variance is the posterior's of
    level 2, for either reverse variance. The bin's probability is given as a density, divided by its width
    ``2 / grey_levels``.

    Source: Ho et al. 2020 (arXiv:2006.11239), Eq. 5 and 13; the decoder's variance is in the official code.

    Args:
        denoiser: Denoiser on a ``DiscreteVP`` process.
        grey_levels: Grey levels of a pixel; images are at the centres of that many bins of [-1, 1].
        variance: Reverse variance, ``small`` (posterior) or ``large`` (forward step).

    Raises:
        ValueError: If the process is not discrete.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> gaussian = EDMDenoiser(lambda *_: 0, DiscreteVP(100), data_std=0.5)  # of images N(0, 0.25 I)
        >>> bound = VariationalBound(gaussian)(torch.zeros(1, 1, 2, 2))
        >>> bound.item() < -2 * math.log(2 * math.pi / 4)
        True
    """

    kind = "bound"
    dequantised = False

    def __init__(
        self, denoiser: Denoiser, grey_levels: PositiveInt = 256, variance: Literal["small", "large"] = "small"
    ) -> None:
        if not isinstance(denoiser.process, DiscreteVP):
            raise ValueError(f"a variational bound needs a DiscreteVP process, got {type(denoiser.process).__name__}")
        self.denoiser, self.grey_levels, self.variance = denoiser, grey_levels, variance
        self.nfe = denoiser.process.steps

    @property
    def settings(self) -> dict[str, Any]:
        return {"nfe": self.nfe, "variance": self.variance}

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        process = self.denoiser.process
        levels = process.levels(torch.arange(process.steps + 1, dtype=torch.float64) / process.last)
        draw = (lambda: torch.randn_like(x)) if noise is None else noise
        top = levels[-1]
        decoder = math.sqrt(_posterior_variance(*levels[1:3])) if process.steps > 1 else levels[1].sigma
        nats = 0.5 * (top.sigma**2 + top.alpha**2 * x**2 - 1 - math.log(top.sigma**2)).flatten(1).sum(1)
        for s, t in pairwise(levels):
            x_t = t.alpha * x + t.sigma * draw()
            denoised = self.denoiser(x_t, t.times(x_t))
            if s.sigma == 0:
                nats = nats - bin_log_prob(x, denoised, decoder, self.grey_levels).flatten(1).sum(1).to(x.dtype)
                continue
            added = added_variance(t, s)[1]
            posterior = _posterior_variance(s, t)
            model = posterior if self.variance == "small" else added
            weight = (s.alpha * added / t.sigma**2) ** 2 / model
            constant = 0.5 * x[0].numel() * (posterior / model - 1 - math.log(posterior / model))
            nats = nats + constant + 0.5 * weight * (x - denoised).square().flatten(1).sum(1)
        return -nats - x[0].numel() * math.log(2 / self.grey_levels)


def _posterior_variance(s: Level, t: Level) -> float:
    """Variance of ``q(x_s | x_t, x)``."""
    return added_variance(t, s)[1] * s.sigma**2 / t.sigma**2


def bin_log_prob(x: Tensor, mean: Tensor, sigma: float, grey_levels: int) -> Tensor:
    """Log mass that ``N(mean, sigma^2)`` gives to the grey-level bin around each pixel of ``x``, float64 like ``x``."""
    x, mean, half = x.double(), mean.double(), 1 / grey_levels
    lower = ((x - half - mean) / sigma).masked_fill(x < -1 + 2 * half, -math.inf)
    upper = ((x + half - mean) / sigma).masked_fill(x > 1 - 2 * half, math.inf)
    # Both in the left tail, where a difference of two masses keeps its digits.
    flip = lower + upper > 0
    lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log(-torch.expm1(log_lower - log_upper))
