"""Noise levels on a straight line from data to noise, and the denoiser of a classifier of such levels."""

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from methods.diffusion.levels import LevelDenoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import DiscreteVP


class StraightLine(DiscreteVP):
    """``x_t = (1 - t) x + t eps`` at levels ``0 .. steps + 1`` of ``t = level / (steps + 1)``; the last is pure noise.

    Its signal-to-noise ratios are those of a variance-preserving process with ``alpha_bar = (1 - t)^2 / ((1 - t)^2 +
    t^2)``, and so are inverse and grid; its images are smaller in between.

    Source: (c), later text, CDM(OT), with its ``T`` as ``steps + 1``; Lipman et al. 2023 (arXiv:2210.02747), Ex. II.

    Args:
        steps: Noisy levels below pure noise.

    Example:
        >>> process, t = StraightLine(3), torch.tensor([0.0, 0.25, 1.0])
        >>> process.alpha(t), process.sigma(t)
        (tensor([1.0000, 0.7500, 0.0000]), tensor([0.0000, 0.2500, 1.0000]))
    """

    def __init__(self, steps: PositiveInt = 999) -> None:
        super().__init__(steps, pure_noise=True)
        t = torch.arange(steps + 2, dtype=torch.float64) / (steps + 1)
        self.alpha_bar = (1 - t) ** 2 / ((1 - t) ** 2 + t**2)

    def extra_repr(self) -> str:
        """``straight line, 999 levels``."""
        return f"straight line, {self.steps} levels"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - self.sigma(t)

    def sigma(self, t: Tensor) -> Tensor:
        return (self.index(t).double() / self.last).to(t.dtype)

    def continuous(self) -> NoiseProcess:
        """There are no levels between these.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a straight line of levels has none in between")


class TransportDenoiser(LevelDenoiser):
    """``E[x | x_t] = ((1 - sigma^2) x_t + sigma^2 grad (f[t] - f[T])) / alpha``, for any ``alpha`` and ``sigma``.

    ``E[eps | x_t]`` is that of ``LevelDenoiser``. Source: (c) Thm. 3.1; later text for this process.

    Example:
        >>> from methods.diffusion.levels import LevelClassifier
        >>> levels = LevelClassifier(lambda x, y: 0 * x.flatten(1), StraightLine(1))  # one that tells nothing
        >>> TransportDenoiser(levels)(torch.ones(1, 1, 1, 3), t=torch.tensor([0.5]))  # (1 - 1/4) / (1/2)
        tensor([[[[1.5000, 1.5000, 1.5000]]]])
    """

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Needs ``alpha > 0``."""
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t - sigma * self.eps(x_t, t, y)) / alpha
