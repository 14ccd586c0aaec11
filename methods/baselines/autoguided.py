"""Two trained denoisers, the better one guided by the worse, with nothing to train."""

import torch
from torch import Tensor

from methods.base import Batch
from methods.diffusion.autoguidance import AutoGuidance
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.samplers import Sampler
from methods.untrained import Untrained


class Autoguided(Untrained):
    """Samples of the classes of a trained denoiser, autoguided. Samples without a class are its own.

    Source: Karras et al. 2024 (arXiv:2406.02507).

    Args:
        denoiser: Trained denoiser of a network that is told classes.
        weak: The same of a smaller network, or one trained for less.
        sampler: See ``Method``.
        guidance_scale: Of ``AutoGuidance``; 1 is the denoiser alone.
    """

    def __init__(
        self, denoiser: Denoiser, weak: Denoiser, sampler: Sampler | None = None, guidance_scale: float = 1.0
    ) -> None:
        super().__init__(denoiser=denoiser, sampler=sampler, guidance_scale=guidance_scale)
        self.weak = weak

    @property
    def conditional(self) -> bool:
        return True

    def guidance(self) -> Denoiser:
        return AutoGuidance(self.denoiser, self.weak, self.guidance_scale)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Denoising errors of both at random times."""
        x, y = batch["labeled"]
        t, eps = self.denoiser.process.sample_times(len(x), x.device), torch.randn_like(x)
        parts = {"denoise": self.denoiser, "denoise_weak": self.weak}
        return {name: part.matching_loss(x, t, eps, y).mean() for name, part in parts.items()}
