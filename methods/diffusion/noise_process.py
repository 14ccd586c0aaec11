"""The contract of a noise process: ``q(x_t | x) = N(alpha_t x, sigma_t^2 I)`` on the time axis [0, 1]."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_LOG_SIGMA = 12.0
"""Bound of the log noise level that networks see; reached only by exactly clean images and exactly pure noise."""


class Level(NamedTuple):
    """One point of a sampler's grid: time and scales, as Python floats of double precision.

    Example:
        >>> Level(time=0.5, alpha=0.5, sigma=2.0).noise_ratio
        4.0
    """

    time: float
    alpha: float
    sigma: float

    @property
    def noise_ratio(self) -> float:
        """``sigma / alpha``, the noise scale of ``x_t / alpha``."""
        return self.sigma / self.alpha

    def times(self, x_t: Tensor) -> Tensor:
        """The time of each image of ``x_t``, ``(B,)``, at least in single precision."""
        dtype = torch.promote_types(x_t.dtype, torch.float32)
        return torch.full((len(x_t),), self.time, dtype=dtype, device=x_t.device)


class NoiseProcess(nn.Module, ABC):
    """Gaussian diffusion of images; a process is its ``alpha`` and its log signal-to-noise ratio.

    ``log_snr(t) = log(alpha_t^2 / sigma_t^2)`` falls as ``t`` rises. Times are ``(B,)`` in [0, 1], 0 is clean.
    """

    t_min: float = 0.0
    """Smallest time that training and sampling visit."""

    t_max: float = 1.0
    """Largest time that training and sampling visit; signal is left there."""

    prior_scale: float = 1.0
    """Standard deviation of the noise that samplers start from."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale, ``(B,) -> (B,)``."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio, ``(B,) -> (B,)``."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """Inverse of ``log_snr``; a discrete process answers its nearest level."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale, ``(B,) -> (B,)``."""
        return self.alpha(t) * torch.exp(-0.5 * self.log_snr(t))

    def log_sigma(self, t: Tensor) -> Tensor:
        """``log(sigma_t / alpha_t)``, bounded: the noise level as networks are told it."""
        return (-0.5 * self.log_snr(t)).clamp(-MAX_LOG_SIGMA, MAX_LOG_SIGMA)

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` at ``t``, shaped to multiply ``like``."""
        shape = (-1,) + (1,) * (like.dim() - 1)
        return self.alpha(t).to(like.dtype).view(shape), self.sigma(t).to(like.dtype).view(shape)

    def perturb(self, x: Tensor, t: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(x_t, eps)`` with ``x_t = alpha_t x + sigma_t eps``; ``eps`` is drawn when not given."""
        eps = torch.randn_like(x) if eps is None else eps
        alpha, sigma = self.scales(t, like=x)
        return alpha * x + sigma * eps, eps

    def sample_times(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Training times, uniform over ``[t_min, t_max]``, ``(n,)``."""
        return self.times_at(torch.rand(n, device=device))

    def times_at(self, u: Tensor) -> Tensor:
        """The time at quantile ``u`` in [0, 1) of the uniform law of training times."""
        return self.t_min + (self.t_max - self.t_min) * u

    def grid(self, steps: int) -> Tensor:
        """``steps`` times from ``t_max`` down to ``t_min``, evenly spaced, float64."""
        return torch.linspace(self.t_max, self.t_min, steps, dtype=torch.float64)

    def continuous(self) -> "NoiseProcess":
        """The process with all noise levels between its own: itself, unless it is discrete."""
        return self

    def levels(self, times: Tensor) -> list[Level]:
        """``times`` with their scales, computed once in double precision."""
        times = times.double()
        return [Level(*row) for row in torch.stack([times, self.alpha(times), self.sigma(times)], dim=1).tolist()]
