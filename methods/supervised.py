"""A classifier of clean images: the accuracy that the diffusion classifiers are compared with."""

import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier
from methods.networks.published.choice import weights_of


class Supervised(Method):
    """Cross-entropy on clean images. With its own seed it is also a suite's reference classifier.

    Args:
        network: ``x -> logits`` with ``features(x)``. If it has ``weights`` of somebody else, its ``start`` reads them.
        label_smoothing: Mass spread evenly over the classes, in [0, 1].
        augmentation: Changes images at random in training.
    """

    def __init__(
        self, network: nn.Module, label_smoothing: ClosedUnitInterval = 0.0, augmentation: nn.Module | None = None
    ) -> None:
        super().__init__(classifier=CleanClassifier(network), start=weights_of(network))
        self.label_smoothing, self.augmentation = label_smoothing, augmentation

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        if self.training and self.augmentation is not None:
            x = self.augmentation(x)
        return {"classify": F.cross_entropy(self.classify(x), y, label_smoothing=self.label_smoothing)}
