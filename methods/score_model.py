"""Unconditional (or class-conditional) score model, the generator that every guided method shares."""

from collections.abc import Callable

import torch
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.process import TimeLaw
from methods.diffusion.samplers import Sampler


class ScoreModel(Method):
    """Denoising score matching on all images, labeled or not.

    Source: (a) and (d), Sec. 2.

    Args:
        denoiser: Parametrised network on a process; states its own weighting.
        times: Law of the training times.
        sampler: See ``Method``.
        likelihood: See ``Method``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        times: TimeLaw,
        sampler: Sampler | None = None,
        likelihood: Callable[[Denoiser], Likelihood] | None = None,
    ) -> None:
        super().__init__(denoiser=denoiser, sampler=sampler, likelihood=likelihood)
        self.times = times

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["labeled"][0]
        if "unlabeled" in batch:
            x = torch.cat([x, batch["unlabeled"]])
        t = self.times(self.denoiser.process, len(x), x.device)
        return {"denoise": self.denoiser.matching_loss(x, t, torch.randn_like(x)).mean()}
