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
from methods.diffusion.noise_process import Level, NoiseProcess

Noise = Callable[[], Tensor]
"""A stream of standard normal draws, each ``(B, C, H, W)``; see ``noise.KeyedNoise``."""


class Sampler(ABC):
    """Draws images from a denoiser.

    Args:
        steps: Levels visited, the last one included.
    """

    evaluations_per_step = 1
    final_evaluations = 1

    def __init__(self, steps: PositiveInt) -> None:
        self.steps = steps

    @property
    def nfe(self) -> int:
        """Denoiser evaluations a sample costs."""
        return self.evaluations_per_step * (self.steps - 1) + self.final_evaluations

    def times(self, process: NoiseProcess) -> Tensor:
        """The grid, ``(steps,)``, descending."""
        return process.grid(self.steps)

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Noise, y: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)``, not clipped; image ``i`` depends on its own noise and label only."""
        levels = denoiser.process.levels(self.times(denoiser.process))
        x = self.solve(denoiser, denoiser.process.prior_scale * noise(), levels, y, noise)
        return self.final(denoiser, x, levels[-1], y, noise)

    @abstractmethod
    def solve(self, denoiser: Denoiser, x: Tensor, levels: list[Level], y: Tensor | None, noise: Noise) -> Tensor:
        """Noisy images at the last level from those at the first."""

    def final(self, denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None, noise: Noise) -> Tensor:
        """The clean images from the last level."""
        return denoiser(x_t, t.times(x_t), y)


class OneStep(Sampler):
    """A sampler that goes from level to level without a memory."""

    def solve(self, denoiser: Denoiser, x: Tensor, levels: list[Level], y: Tensor | None, noise: Noise) -> Tensor:
        for t, s in pairwise(levels):
            x = self.step(denoiser, x, t, s, y, noise)
        return x

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        """``x_s`` from ``x_t``, with ``s`` the less noisy level."""


def _eps(denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None) -> Tensor:
    return (x_t - t.alpha * denoiser(x_t, t.times(x_t), y)) / t.sigma


def added_variance(t: Level, s: Level) -> tuple[float, float]:
    """``alpha_ts`` and ``sigma_ts^2`` of ``q(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I)``."""
    alpha_ts = t.alpha / s.alpha
    return alpha_ts, t.sigma**2 - (alpha_ts * s.sigma) ** 2


class DDPM(OneStep):
    """Ancestral sampling: ``x_s ~ N(mean of q(x_s | x_t, x = D), variance)``.

    Skipped levels recompute ``alpha_ts``. The estimate of ``x`` is not clipped.

    Source: Ho et al. 2020 (arXiv:2006.11239), Alg. 2.

    Args:
        steps: Levels visited.
        variance: ``small`` is the posterior's, ``large`` that of the forward step.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import DiscreteVP
        >>> gaussian = EDMDenoiser(lambda *_: 0, DiscreteVP(100))  # of images N(0, 0.25 I)
        >>> images = DDPM(100)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    def __init__(self, steps: PositiveInt = 1000, variance: Literal["small", "large"] = "small") -> None:
        super().__init__(steps)
        self.variance = variance

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        alpha_ts, added = added_variance(t, s)
        shrink = s.sigma**2 / t.sigma**2
        mean = (alpha_ts * shrink) * x_t + (s.alpha * added / t.sigma**2) * denoiser(x_t, t.times(x_t), y)
        variance = added * shrink if self.variance == "small" else added
        return mean.add_(noise(), alpha=math.sqrt(variance))


class DDIM(OneStep):
    """``x_s = alpha_s D + sqrt(sigma_s^2 - v) eps + sqrt(v) z``: deterministic at ``eta`` 0, ancestral at 1.

    Source: Song et al. 2021 (arXiv:2010.02502), Eq. 12 and 16.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import DiscreteVP
        >>> gaussian = EDMDenoiser(lambda *_: 0, DiscreteVP(100))  # of images N(0, 0.25 I)
        >>> images = DDIM(50)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    def __init__(self, steps: PositiveInt = 50, eta: NonNegativeFloat = 0.0) -> None:
        super().__init__(steps)
        self.eta = eta

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        denoised = denoiser(x_t, t.times(x_t), y)
        eps = (x_t - t.alpha * denoised) / t.sigma
        _, added = added_variance(t, s)
        variance = self.eta**2 * added * s.sigma**2 / t.sigma**2
        x_s = s.alpha * denoised + math.sqrt(s.sigma**2 - variance) * eps
        return x_s.add_(noise(), alpha=math.sqrt(variance)) if self.eta else x_s


class Heun(OneStep):
    """Second-order solver of the probability-flow ODE on the grid of Karras et al.

    In ``u = x / alpha`` and ``s = sigma / alpha`` the ODE is ``du / ds = eps``; the grid is even in ``s^(1/rho)``.

    Source: Karras et al. 2022 (arXiv:2206.00364), Alg. 1 and Eq. 5.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding())  # of images N(0, 0.25 I)
        >>> images = Heun(18)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    evaluations_per_step = 2

    def __init__(self, steps: PositiveInt = 18, rho: PositiveFloat = 7.0) -> None:
        super().__init__(steps)
        self.rho = rho

    def times(self, process: NoiseProcess) -> Tensor:
        ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
        high, low = torch.exp(-0.5 * process.log_snr(ends)).pow(1 / self.rho)
        sigmas = torch.linspace(float(high), float(low), self.steps, dtype=torch.float64) ** self.rho
        return process.time(-2 * sigmas.log()).clamp(process.t_min, process.t_max)

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        u = x_t / t.alpha
        width = s.noise_ratio - t.noise_ratio
        eps = _eps(denoiser, x_t, t, y)
        eps_s = _eps(denoiser, s.alpha * (u + width * eps), s, y)
        return s.alpha * (u + 0.5 * width * (eps + eps_s))


class DPMSolver2(OneStep):
    """Second-order exponential integrator in the log signal-to-noise ratio, two evaluations a step.

    Source: Lu et al. 2022 (arXiv:2206.00927), Alg. 1 with the midpoint in ``lambda``.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding())  # of images N(0, 0.25 I)
        >>> images = DPMSolver2(25)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    evaluations_per_step = 2

    def __init__(self, steps: PositiveInt = 25) -> None:
        super().__init__(steps)

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        h = math.log(t.noise_ratio / s.noise_ratio)
        middle = torch.tensor([-2 * math.log(t.noise_ratio) + h], dtype=torch.float64)
        (m,) = denoiser.process.levels(denoiser.process.time(middle))
        # A discrete process has the middle up to its nearest level: neighbours have none, and use their end.
        m = m if m.noise_ratio < t.noise_ratio else s
        to_m = math.log(t.noise_ratio / m.noise_ratio)
        eps = _eps(denoiser, x_t, t, y)
        x_m = (m.alpha / t.alpha) * x_t - m.sigma * math.expm1(to_m) * eps
        slope = (_eps(denoiser, x_m, m, y) - eps) / to_m
        return (s.alpha / t.alpha) * x_t - s.sigma * math.expm1(h) * (eps + 0.5 * h * slope)


class DPMSolver2Multistep(Sampler):
    """Second-order exponential integrator that reuses the last evaluation: one evaluation a step.

    Taylor form in the predicted noise, the one in (c)'s released sampler; the first step is DDIM's.

    Source: Lu et al. 2022 (arXiv:2211.01095), multistep solver.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding())  # of images N(0, 0.25 I)
        >>> images = DPMSolver2Multistep(25)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    def __init__(self, steps: PositiveInt = 25) -> None:
        super().__init__(steps)

    def solve(self, denoiser: Denoiser, x: Tensor, levels: list[Level], y: Tensor | None, noise: Noise) -> Tensor:
        past: tuple[Level, Tensor] | None = None
        for t, s in pairwise(levels):
            eps = _eps(denoiser, x, t, y)
            h = math.log(t.noise_ratio / s.noise_ratio)
            change = math.expm1(h) * eps
            if past is not None:
                slope = (eps - past[1]) / math.log(past[0].noise_ratio / t.noise_ratio)
                change = change + (math.expm1(h) - h) * slope
            x = (s.alpha / t.alpha) * x - s.sigma * change
            past = t, eps
        return x


class PredictorCorrector(OneStep):
    """Reverse-diffusion predictor and one Langevin corrector step at each level.

    The corrector's step size uses each image's own score and the expected norm ``sqrt(d)`` of its noise, where the
    official code averages both norms over the batch: an image then depends on its own noise alone. That its step size
    is tied to where it stands spreads the samples' variance by a factor ``1 + 2 / d``, for ``d`` pixels.

    Source: Song et al. 2021 (arXiv:2011.13456), Alg. 2 to 5.

    Args:
        steps: Levels visited.
        snr: Signal-to-noise ratio ``r`` of the corrector.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding())  # of images N(0, 0.25 I)
        >>> images = PredictorCorrector(100)(gaussian, lambda: torch.randn(256, 1, 8, 8))
        >>> round(images.std().item(), 1)
        0.5
    """

    evaluations_per_step = final_evaluations = 2

    def __init__(self, steps: PositiveInt = 1000, snr: PositiveFloat = 0.16) -> None:
        super().__init__(steps)
        self.snr = snr

    def _correct(self, denoiser: Denoiser, x_t: Tensor, t: Level, decay: float, y: Tensor | None, z: Tensor) -> Tensor:
        score = _eps(denoiser, x_t, t, y) / -t.sigma
        size = 2 * decay * self.snr**2 / score.square().mean((1, 2, 3), keepdim=True)
        return x_t + size * score + torch.sqrt(2 * size) * z

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Level, s: Level, y: Tensor | None, noise: Noise) -> Tensor:
        alpha_ts, added = added_variance(t, s)
        x_t = self._correct(denoiser, x_t, t, alpha_ts**2, y, noise())
        score = _eps(denoiser, x_t, t, y) / -t.sigma
        return (2 - alpha_ts) * x_t + added * score + math.sqrt(added) * noise()

    def final(self, denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None, noise: Noise) -> Tensor:
        x_t = self._correct(denoiser, x_t, t, t.alpha**2, y, noise())
        return denoiser(x_t, t.times(x_t), y)
