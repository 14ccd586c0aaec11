"""A trained class-conditional denoiser as a classifier, with nothing to train."""

import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from methods.base import Batch
from methods.diffusion.denoiser import Denoiser, Pretrained
from methods.diffusion.error_classifier import ErrorClassifier
from methods.untrained import Untrained


class DiffusionClassifier(Untrained):
    """``ErrorClassifier`` of the denoiser of another row, whose columns of a classifier it fills.

    Source: Li et al. 2023 (arXiv:2303.16203); Chen et al. 2024 (arXiv:2305.15241), without its likelihood maximisation.

    Args:
        denoiser: Of a network that is told classes: a trained one, or with ``checkpoint`` as it was built for training.
        classes: Number of classes ``K``.
        times: See ``ErrorClassifier``; so are ``sigma_min`` and ``sigma_max``.
        checkpoint: File of the method that trained the denoiser, whose ``denoiser.*`` weights are taken.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classes: PositiveInt,
        times: PositiveInt = 20,
        sigma_min: PositiveFloat | None = None,
        sigma_max: PositiveFloat | None = None,
        checkpoint: str | None = None,
    ) -> None:
        if checkpoint is not None:
            denoiser = Pretrained(denoiser, checkpoint)
        super().__init__(denoiser, ErrorClassifier(denoiser, classes, times, sigma_min, sigma_max))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the posterior of clean images."""
        x, y = batch["labeled"]
        return {"classify": F.cross_entropy(self.classify(x), y)}
