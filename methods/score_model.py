"""Unconditional (or class-conditional) score model, the generator that every guided method shares."""

from collections.abc import Callable

import torch
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.process import TimeLaw
from methods.diffusion.samplers import Sampler
from methods.networks.published.load import starting_from


class ScoreModel(Method):
    """Denoising score matching on all images, labeled or not.

    Source: (a) and (d), Sec. 2.

    Args:
        denoiser: Parametrised network on a process; states its own weighting.
        times: Law of the training times.
        sampler: See ``Method``.
        likelihood: See ``Method``.
        checkpoint: Published weights of the network to start from, see ``load_published``; they predict the noise.

    Raises:
        ValueError: If there is a checkpoint, and the denoiser is no ``EpsDenoiser``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        times: TimeLaw,
        sampler: Sampler | None = None,
        likelihood: Callable[[Denoiser], Likelihood] | None = None,
        checkpoint: str | None = None,
    ) -> None:
        if checkpoint is not None and not isinstance(denoiser, EpsDenoiser):
            raise ValueError(
                f"published networks predict the noise: a checkpoint needs EpsDenoiser, got {type(denoiser).__name__}"
            )
        start = None if checkpoint is None else starting_from(checkpoint, denoiser.network)
        super().__init__(denoiser=denoiser, sampler=sampler, likelihood=likelihood, start=start)
        self.times = times

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["labeled"][0]
        if "unlabeled" in batch:
            x = torch.cat([x, batch["unlabeled"]])
        t = self.times(self.denoiser.process, len(x), x.device)
        return {"denoise": self.denoiser.matching_loss(x, t, torch.randn_like(x)).mean()}
