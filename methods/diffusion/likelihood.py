"""Log-densities of images under a denoiser, in nats over [-1, 1]; the table says of which kind."""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.process import DiscreteVP, Level
from methods.diffusion.samplers import Noise


class Likelihood(ABC):
    """``log p(x)`` in nats, ``(B,)``, of images ``(B, C, H, W)``.

    ``kind`` says what the number is: ``exact``, a ``bound`` from below, or an unbiased ``estimate``.
    ``nfe`` counts the network evaluations an image costs; ``dequantised`` says whether it scores images with
    dequantisation noise (a density) or the grey levels themselves (a probability, given as the density of its bin).
    """

    kind: Literal["exact", "bound", "estimate"]
    nfe: int
    dequantised: bool = True

    @abstractmethod
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Log-density of each image; ``noise`` feeds what is stochastic in it."""


def _normal_log_prob(x: Tensor, scale: float = 1.0) -> Tensor:
    d = x[0].numel()
    return -0.5 * (x / scale).square().flatten(1).sum(1) - d * (0.5 * math.log(2 * math.pi) + math.log(scale))


class ProbabilityFlow(Likelihood):
    """Change of variables along the probability-flow ODE, its divergence estimated with one Rademacher probe an image.

    In ``u = x / alpha`` and ``s = sigma / alpha`` the ODE is ``du / ds = eps``, on even steps in ``log s``. A step
    extrapolates the last two slopes, evaluates there, and ends by the trapezoidal rule: order two, one evaluation.

    Source: Song et al. 2021 (arXiv:2011.13456), Eq. 39 and 40.

    Args:
        denoiser: Whose density.
        steps: Steps of the solver, a network evaluation and an input gradient each; a discrete process leaves out
            those that are finer than its levels.
    """

    kind = "estimate"

    def __init__(self, denoiser: Denoiser, steps: PositiveInt = 60) -> None:
        self.denoiser, self.steps, self.nfe = denoiser, steps, steps + 1

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        process = self.denoiser.process
        probe = (torch.randn_like(x) if noise is None else noise()).sign()
        ends = -0.5 * process.log_snr(torch.tensor([process.t_min, process.t_max], dtype=torch.float64))
        log_ratios = torch.linspace(float(ends[0]), float(ends[1]), self.steps + 1, dtype=torch.float64)
        levels = process.levels(process.time(-2 * log_ratios).unique_consecutive())
        d = x[0].numel()

        def rates(u: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            """``du / ds`` and its divergence times ``s``, which is nearly ``d`` in strong noise."""
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                x_t = level.alpha * u
                eps = self.denoiser.eps(x_t, level.times(x_t))
                (pulled,) = torch.autograd.grad((eps * probe).sum(), u)
            return eps.detach(), level.noise_ratio * (pulled * probe).flatten(1).sum(1)

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


class VariationalBound(Likelihood):
    """Evidence lower bound of a DDPM chain on grey levels, every level visited once with one draw.

    The decoder is the Gaussian mass of a pixel's bin, open at the two edge bins. The bin's probability is given as a
    density, divided by its width ``2 / grey_levels``.

    Source: Ho et al. 2020 (arXiv:2006.11239), Eq. 5 and 13.

    Args:
        denoiser: Denoiser on a ``DiscreteVP`` process.
        grey_levels: Grey levels of a pixel; images are at the centres of that many bins of [-1, 1].
        variance: Reverse variance, ``small`` (posterior) or ``large`` (forward step).

    Raises:
        ValueError: If the process is not discrete.
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

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        process = self.denoiser.process
        levels = process.levels(torch.arange(process.steps + 1, dtype=torch.float64) / process.last)
        draw = (lambda: torch.randn_like(x)) if noise is None else noise
        top = levels[-1]
        nats = 0.5 * (top.sigma**2 + top.alpha**2 * x**2 - 1 - math.log(top.sigma**2)).flatten(1).sum(1)
        for s, t in pairwise(levels):
            x_t = t.alpha * x + t.sigma * draw()
            denoised = self.denoiser(x_t, t.times(x_t))
            alpha_ts = t.alpha / s.alpha
            added = t.sigma**2 - (alpha_ts * s.sigma) ** 2
            if s.sigma == 0:
                nats = nats - bin_log_prob(x, denoised, t.sigma, self.grey_levels).flatten(1).sum(1).to(x.dtype)
                continue
            posterior = added * s.sigma**2 / t.sigma**2
            model = posterior if self.variance == "small" else added
            weight = (s.alpha * added / t.sigma**2) ** 2 / model
            constant = 0.5 * x[0].numel() * (posterior / model - 1 - math.log(posterior / model))
            nats = nats + constant + 0.5 * weight * (x - denoised).square().flatten(1).sum(1)
        return -nats - x[0].numel() * math.log(2 / self.grey_levels)


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
