"""Noise processes, and laws of training times."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.diffusion.noise_process import NoiseProcess


class VarianceExploding(NoiseProcess):
    """Noise process without signal decay: ``x_t = x + sigma_t * eps``.

    ``sigma_t = sigma_min * (sigma_max / sigma_min) ** t``: the log-SNR is linear in ``t``.

    Source: Song et al. 2021 (arXiv:2011.13456), App. C, VE SDE; (a) and (d) Sec. 2.

    Args:
        sigma_min: Noise scale at ``t = 0``, in units of the image range [-1, 1].
        sigma_max: Noise scale at ``t = 1``; about the largest distance between two images.

    Raises:
        ValueError: If not ``0 < sigma_min < sigma_max``.

    Example:
        >>> VarianceExploding(sigma_min=0.01, sigma_max=100.0).sigma(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    def __init__(self, sigma_min: PositiveFloat = 0.02, sigma_max: PositiveFloat = 100.0) -> None:
        super().__init__()
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max, self.prior_scale = sigma_min, sigma_max, sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min))

    def time(self, log_snr: Tensor) -> Tensor:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


class ContinuousVP(NoiseProcess):
    """Variance-preserving SDE with linear ``beta``: ``alpha_t^2 + sigma_t^2 = 1``.

    ``log alpha_t = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2``.

    Source: Song et al. 2021 (arXiv:2011.13456), App. C, VP SDE.

    Raises:
        ValueError: If not ``0 < beta_min < beta_max``.

    Example:
        >>> process, t = ContinuousVP(), torch.tensor([0.001, 0.5, 1.0])
        >>> torch.allclose(process.alpha(t).square() + process.sigma(t).square(), torch.ones(3))
        True
    """

    t_min = 1e-3

    def __init__(self, beta_min: PositiveFloat = 0.1, beta_max: PositiveFloat = 20.0) -> None:
        super().__init__()
        if not 0 < beta_min < beta_max:
            raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def _integral(self, t: Tensor) -> Tensor:
        """``int_0^t beta``, which is ``-2 log alpha``."""
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(torch.expm1(self._integral(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        integral = nn.functional.softplus(-log_snr)
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * integral))


class LogLinearVP(NoiseProcess):
    """Variance-preserving process whose log-SNR is linear in ``t``, between two ends.

    Args:
        highest: Log-SNR at ``t = 0``.
        lowest: Log-SNR at ``t = 1``.

    Example:
        >>> LogLinearVP(highest=10.0, lowest=-10.0).log_snr(torch.tensor([0.0, 0.5, 1.0]))
        tensor([ 10.,   0., -10.])
    """

    def __init__(self, highest: float, lowest: float) -> None:
        super().__init__()
        self.highest, self.lowest = highest, lowest

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_snr(t).sigmoid().sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (-self.log_snr(t)).sigmoid().sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        return self.highest + t * (self.lowest - self.highest)

    def time(self, log_snr: Tensor) -> Tensor:
        return (log_snr - self.highest) / (self.lowest - self.highest)


def _linear(steps: int) -> Tensor:
    beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
    return torch.cumprod(1 - beta.clamp(max=0.999), dim=0)


def _cosine(steps: int) -> Tensor:
    angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2
    beta = 1 - (torch.cos(angle[1:]) / torch.cos(angle[:-1])) ** 2
    return torch.cumprod(1 - beta.clamp(max=0.999), dim=0)


def _uniform(steps: int) -> Tensor:
    return 1 - (torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1)) ** 2


SCHEDULES = {"linear": _linear, "cosine": _cosine, "uniform": _uniform}


class DiscreteVP(NoiseProcess):
    """Variance-preserving process of ``steps`` noisy levels after the clean one; ``t = level / last level``.

    Schedules of ``alpha_bar``: ``linear`` (DDPM; both ends of ``beta`` scaled by ``1000 / steps``), ``cosine``
    (Nichol and Dhariwal 2021, Eq. 17), ``uniform`` (``1 - (level / (steps + 1))^2``, (c) P3).

    Source: Ho et al. 2020 (arXiv:2006.11239); with ``pure_noise``, the level set of (c), Sec. 3: levels 0..T+1, of
    which 0 is the data and T+1 exactly N(0, I).

    Args:
        steps: Noisy levels ``T`` below pure noise.
        schedule: How ``alpha_bar`` falls.
        pure_noise: Add the level ``T + 1`` with ``alpha = 0``; samplers still start at level ``T``.

    Example:
        >>> process = DiscreteVP(4, schedule="uniform", pure_noise=True)
        >>> process.alpha_bar
        tensor([1.0000, 0.9600, 0.8400, 0.6400, 0.3600, 0.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        steps: PositiveInt = 1000,
        schedule: Literal["linear", "cosine", "uniform"] = "linear",
        pure_noise: bool = False,
    ) -> None:
        super().__init__()
        self.steps, self.schedule, self.last = steps, schedule, steps + int(pure_noise)
        self.t_min, self.t_max = 1 / self.last, steps / self.last
        self.register_buffer("alpha_bar", self._table(), persistent=False)

    def _table(self) -> Tensor:
        """``alpha_bar`` of all levels, float64, on the device where tensors are made."""
        data, noise = torch.ones(1, dtype=torch.float64), torch.zeros(self.last - self.steps, dtype=torch.float64)
        return torch.cat([data, SCHEDULES[self.schedule](self.steps), noise])

    def _on(self, device: torch.device) -> Tensor:
        """``alpha_bar`` on a device; samplers ask on the CPU, where a method on the meta device has no numbers."""
        if self.alpha_bar.device == device:
            return self.alpha_bar
        with torch.device("cpu"):
            return self._table().to(device)

    def extra_repr(self) -> str:
        """Schedule and number of levels: ``cosine, 100 levels``."""
        return f"{self.schedule}, {self.steps} levels"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DiscreteVP":
        exact = self.alpha_bar  # stays double when a model is cast: 1 - alpha_bar is 1e-4 at the first level
        super()._apply(fn, recurse)
        self.alpha_bar = exact.to(self.alpha_bar.device)
        return self

    def index(self, t: Tensor) -> Tensor:
        """Level of each time, int64 ``(B,)``."""
        return (t * self.last).round().long().clamp(0, self.last)

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return self._on(t.device)[self.index(t)]

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha_bar(t).sqrt().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._alpha_bar(t)).sqrt().to(t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        return torch.logit(self._alpha_bar(t)).to(t.dtype)

    def time(self, log_snr: Tensor) -> Tensor:
        rising = -torch.logit(self._on(log_snr.device))
        # Finite midpoints: only infinity itself is nearest to the clean level, or to pure noise.
        midpoints = (0.5 * (rising[1:] + rising[:-1])).nan_to_num()
        level = torch.searchsorted(midpoints, -log_snr.double())
        return (level.double() / self.last).to(log_snr.dtype)

    def times_at(self, u: Tensor) -> Tensor:
        """Uniform over the noisy levels ``1..T``."""
        return ((u * self.steps).floor().clamp(max=self.steps - 1) + 1) / self.last

    def continuous(self) -> LogLinearVP:
        """The process with all noise levels from that of level 1 to that of level ``T``."""
        alpha_bar = self._on(torch.device("cpu"))[[1, self.steps]]
        return LogLinearVP(*torch.logit(alpha_bar).tolist())

    def grid(self, steps: int) -> Tensor:
        """Levels ``1 + floor(i T / steps)``, ``0 <= i < steps``, from the highest down.

        Raises:
            ValueError: If more steps are asked for than there are levels.
        """
        if steps > self.steps:
            raise ValueError(f"a sampler of {steps} steps needs as many noise levels, the process has {self.steps}")
        levels = 1 + torch.arange(steps) * self.steps // steps
        return levels.flip(0).double() / self.last


class TimeLaw(ABC):
    """Law of the training times."""

    @abstractmethod
    def __call__(self, process: NoiseProcess, n: int, device: torch.device) -> Tensor:
        """``n`` times in [0, 1]."""


class UniformTimes(TimeLaw):
    """The process's own law: uniform in ``t`` (VE: log-uniform in sigma; discrete: all levels alike).

    Example:
        >>> UniformTimes()(DiscreteVP(1), 3, torch.device("cpu"))
        tensor([1., 1., 1.])
    """

    def __call__(self, process: NoiseProcess, n: int, device: torch.device) -> Tensor:
        return process.sample_times(n, device)


class LogNormalSigma(TimeLaw):
    """``log(sigma / alpha) ~ N(mean, std^2)``, clipped to the process's range.

    Source: Karras et al. 2022 (arXiv:2206.00364), Table 1; in units of the image range [-1, 1].

    Example:
        >>> process = VarianceExploding()
        >>> t = LogNormalSigma(mean=-0.6, std=1.4)(process, 10_000, torch.device("cpu"))
        >>> round(process.log_sigma(t).mean().item(), 1)
        -0.6
    """

    def __init__(self, mean: float = -0.6, std: PositiveFloat = 1.4) -> None:
        self.mean, self.std = mean, std

    def __call__(self, process: NoiseProcess, n: int, device: torch.device) -> Tensor:
        log_sigma = self.mean + self.std * torch.randn(n, device=device)
        return process.time(-2 * log_sigma).clamp(process.t_min, process.t_max)
