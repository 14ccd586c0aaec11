"""Samplers: from noise to images through a denoiser, knowing ``alpha`` and ``sigma`` only.

A sampler visits a descending grid of levels and ends with the denoiser's estimate at the last one. Guidance is a
denoiser, so none is known here. The grid's scales are computed once, in double precision, and enter as Python floats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.process import Level, NoiseProcess

Noise = Callable[[], Tensor]
"""A stream of standard normal draws, each ``(B, C, H, W)``; see ``noise.KeyedNoise``."""


class Sampler(ABC):
    """Draws images from a denoiser.

    Args:
        steps: Levels visited, the last one included.
    """

    evaluations_per_step = 1

    def __init__(self, steps: PositiveInt) -> None:
        self.steps = steps

    @property
    def nfe(self) -> int:
        """Denoiser evaluations a sample costs."""
        return self.evaluations_per_step * self.steps

    def times(self, process: NoiseProcess) -> Tensor:
        """The grid, ``(steps,)``, descending."""
        return process.grid(self.steps)

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Noise, y: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)``, not clipped; image ``i`` depends on its own noise and label only."""
        levels = denoiser.process.levels(self.times(denoiser.process))
        x = denoiser.process.prior_scale * noise()
        for t, s in pairwise(levels):
            x = self.step(denoiser, x, t, s, y, noise)
        return self.final(denoiser, x, levels[-1], y, noise)

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        """``x_s`` from ``x_t``, with ``s`` the less noisy level."""

    def final(self, denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None, noise: Noise) -> Tensor:
        """The clean images from the last level."""
        return denoiser(x_t, _time(t, x_t), y)


def _time(level: Level, x_t: Tensor) -> Tensor:
    return x_t.new_full((len(x_t),), level.time)


def _eps(denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None) -> Tensor:
    return (x_t - t.alpha * denoiser(x_t, _time(t, x_t), y)) / t.sigma


def _added_variance(t: Level, s: Level) -> tuple[float, float]:
    """``alpha_ts`` and ``sigma_ts^2`` of ``q(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I)``."""
    alpha_ts = t.alpha / s.alpha
    return alpha_ts, t.sigma**2 - (alpha_ts * s.sigma) ** 2


class DDPM(Sampler):
    """Ancestral sampling: ``x_s ~ N(mean of q(x_s | x_t, x = D), variance)``.

    Skipped levels recompute ``alpha_ts``. The estimate of ``x`` is not clipped.

    Source: Ho et al. 2020 (arXiv:2006.11239), Alg. 2.

    Args:
        steps: Levels visited.
        variance: ``small`` is the posterior's, ``large`` that of the forward step.
    """

    def __init__(self, steps: PositiveInt = 1000, variance: Literal["small", "large"] = "small") -> None:
        super().__init__(steps)
        self.variance = variance

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        alpha_ts, added = _added_variance(t, s)
        shrink = s.sigma**2 / t.sigma**2
        mean = (alpha_ts * shrink) * x_t + (s.alpha * added / t.sigma**2) * denoiser(x_t, _time(t, x_t), y)
        variance = added * shrink if self.variance == "small" else added
        return mean.add_(noise(), alpha=math.sqrt(variance))


class DDIM(Sampler):
    """``x_s = alpha_s D + sqrt(sigma_s^2 - v) eps + sqrt(v) z``: deterministic at ``eta`` 0, ancestral at 1.

    Source: Song et al. 2021 (arXiv:2010.02502), Eq. 12 and 16.
    """

    def __init__(self, steps: PositiveInt = 50, eta: NonNegativeFloat = 0.0) -> None:
        super().__init__(steps)
        self.eta = eta

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        denoised = denoiser(x_t, _time(t, x_t), y)
        eps = (x_t - t.alpha * denoised) / t.sigma
        _, added = _added_variance(t, s)
        variance = self.eta**2 * added * s.sigma**2 / t.sigma**2
        x_s = s.alpha * denoised + math.sqrt(s.sigma**2 - variance) * eps
        return x_s.add_(noise(), alpha=math.sqrt(variance)) if self.eta else x_s


class Heun(Sampler):
    """Second-order solver of the probability-flow ODE on the grid of Karras et al.

    In ``u = x / alpha`` and ``s = sigma / alpha`` the ODE is ``du / ds = eps``; the grid is even in ``s^(1/rho)``.

    Source: Karras et al. 2022 (arXiv:2206.00364), Alg. 1 and Eq. 5.
    """

    evaluations_per_step = 2

    def __init__(self, steps: PositiveInt = 18, rho: PositiveFloat = 7.0) -> None:
        super().__init__(steps)
        self.rho = rho

    @property
    def nfe(self) -> int:
        return 2 * self.steps - 1

    def times(self, process: NoiseProcess) -> Tensor:
        ends = torch.tensor([1.0, process.t_min], dtype=torch.float64)
        high, low = torch.exp(-0.5 * process.log_snr(ends)).pow(1 / self.rho)
        sigmas = torch.linspace(float(high), float(low), self.steps, dtype=torch.float64) ** self.rho
        return process.time(-2 * sigmas.log()).clamp(process.t_min, 1.0)

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        u = x_t / t.alpha
        width = s.sigma / s.alpha - t.sigma / t.alpha
        eps = _eps(denoiser, x_t, t, y)
        eps_s = _eps(denoiser, s.alpha * (u + width * eps), s, y)
        return s.alpha * (u + 0.5 * width * (eps + eps_s))


class DPMSolver2(Sampler):
    """Second-order exponential integrator in the log signal-to-noise ratio, two evaluations a step.

    Source: Lu et al. 2022 (arXiv:2206.00927), Alg. 1 with the midpoint in ``lambda``.
    """

    evaluations_per_step = 2

    def __init__(self, steps: PositiveInt = 25) -> None:
        super().__init__(steps)

    @property
    def nfe(self) -> int:
        return 2 * self.steps - 1

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        log_t, log_s = math.log(t.alpha / t.sigma), math.log(s.alpha / s.sigma)
        half = torch.tensor([log_t + log_s], dtype=torch.float64)  # twice the middle lambda is its log-SNR
        (m,) = denoiser.process.levels(denoiser.process.time(half))
        # A discrete process has the middle only up to its nearest level, so the fraction of the way is recomputed.
        log_m = math.log(m.alpha / m.sigma)
        h, to_m = log_s - log_t, log_m - log_t
        eps = _eps(denoiser, x_t, t, y)
        x_m = (m.alpha / t.alpha) * x_t - m.sigma * math.expm1(to_m) * eps
        slope = (_eps(denoiser, x_m, m, y) - eps) / to_m if to_m > 0 else torch.zeros_like(eps)
        first, second = math.expm1(h), math.expm1(h) * h / 2
        return (s.alpha / t.alpha) * x_t - s.sigma * (first * eps + second * slope)


class DPMSolver2Multistep(Sampler):
    """Second-order exponential integrator that reuses the last evaluation: one evaluation a step.

    Taylor form in the predicted noise, the one in (c)'s released sampler; the first step is DDIM's.

    Source: Lu et al. 2022 (arXiv:2211.01095), multistep solver.
    """

    def __init__(self, steps: PositiveInt = 25) -> None:
        super().__init__(steps)

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        return self._advance(x_t, _eps(denoiser, x_t, t, y), 0.0, t, s)

    def _advance(self, x_t: Tensor, eps: Tensor, slope: Tensor | float, t: Level, s: Level) -> Tensor:
        h = math.log(s.alpha / s.sigma) - math.log(t.alpha / t.sigma)
        change = math.expm1(h) * eps + (math.expm1(h) - h) * slope
        return (s.alpha / t.alpha) * x_t - s.sigma * change

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Noise, y: Tensor | None = None) -> Tensor:
        levels = denoiser.process.levels(self.times(denoiser.process))
        x = denoiser.process.prior_scale * noise()
        slope: Tensor | float = 0.0
        for before, t, s in zip([None, *levels[:-2]], levels[:-1], levels[1:], strict=True):
            eps = _eps(denoiser, x, t, y)
            if before is not None:
                slope = (eps - eps_before) / math.log(t.alpha * before.sigma / (t.sigma * before.alpha))  # noqa: F821
            x, eps_before = self._advance(x, eps, slope, t, s), eps  # noqa: F841
        return self.final(denoiser, x, levels[-1], y, noise)


class PredictorCorrector(Sampler):
    """Reverse-diffusion predictor and one Langevin corrector step at each level.

    The corrector's step size uses each image's own norms, where the official code averages norms over the batch: an
    image then depends on its own noise alone.

    Source: Song et al. 2021 (arXiv:2011.13456), Alg. 2 to 5.

    Args:
        steps: Levels visited.
        snr: Signal-to-noise ratio ``r`` of the corrector.
    """

    evaluations_per_step = 2

    def __init__(self, steps: PositiveInt = 1000, snr: PositiveFloat = 0.16) -> None:
        super().__init__(steps)
        self.snr = snr

    def _correct(self, denoiser: Denoiser, x_t: Tensor, t: Level, decay: float, y: Tensor | None, z: Tensor) -> Tensor:
        score = _eps(denoiser, x_t, t, y) / -t.sigma
        norms = [v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (z, score)]
        size = 2 * decay * (self.snr * norms[0] / norms[1]) ** 2
        return x_t + size * score + torch.sqrt(2 * size) * z

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        alpha_ts, added = _added_variance(t, s)
        x_t = self._correct(denoiser, x_t, t, alpha_ts**2, y, noise())
        score = _eps(denoiser, x_t, t, y) / -t.sigma
        return (2 - alpha_ts) * x_t + added * score + math.sqrt(added) * noise()

    def final(self, denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None, noise: Noise) -> Tensor:
        x_t = self._correct(denoiser, x_t, t, t.alpha**2, y, noise())
        return denoiser(x_t, _time(t, x_t), y)
