"""Guidance of a denoiser by a worse one of the same images."""

from torch import Tensor

from methods.diffusion.denoiser import Denoiser


class AutoGuidance(Denoiser):
    """``D_weak + scale (D - D_weak)``, both told the class: the denoiser of ``p_weak (p / p_weak)^scale``.

    Source: Karras et al. 2024 (arXiv:2406.02507), official code of EDM2: a smaller network, trained for less.

    Args:
        denoiser: ``D``.
        weak: Denoiser of the same process that has the same faults, larger.
        scale: 1 is ``D`` alone, 0 the weak one.

    Example:
        >>> import torch
        >>> from methods.baselines.gaussian import GaussianDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussians = GaussianDenoiser([1, 1, 2], 2, VarianceExploding())
        >>> guided = AutoGuidance(gaussians, gaussians, scale=2.0)
        >>> x_t, t, y = torch.ones(1, 1, 1, 2), torch.ones(1), torch.tensor([0])
        >>> torch.equal(guided(x_t, t, y), gaussians(x_t, t, y))  # it is no worse than itself
        True
    """

    def __init__(self, denoiser: Denoiser, weak: Denoiser, scale: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.weak, self.scale, self.process = denoiser, weak, scale, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        denoised = self.denoiser(x_t, t, y)
        if self.scale == 1:
            return denoised
        weak = self.weak(x_t, t, y)
        return weak + self.scale * (denoised - weak)
