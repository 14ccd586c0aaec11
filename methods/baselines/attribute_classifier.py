"""A classifier of clean images by many binary attributes: what joint diffusion with attributes is compared with."""

import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.attributes import NamedAttribute, attribute_accuracy, attributes_of


class CleanAttributes(NamedAttribute):
    """``p(a_k | x)`` of clean images; ``t`` is ignored.

    Args:
        network: ``x -> logits (B, classes)``, as many as attributes.
        named: See ``NamedAttribute``.
    """

    def __init__(self, network: nn.Module, named: int) -> None:
        super().__init__(named, network.classes)
        self.network = network

    def attribute_logits(self, x_t: Tensor, t: Tensor | None = None) -> Tensor:
        return self.network(x_t)

    def features(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(x)


class AttributeClassifier(Method):
    """Binary cross-entropy of clean images, mean over attributes and images.

    Source: (e) Sec. 4.1, the stand-alone classifier. The text states no loss for the 40 attributes: this one is ours.

    Args:
        network: ``x -> logits``, as many as attributes, with ``features(x)`` and ``classes``.
        named: Number of the attribute that is the class of the data module's task.
        augmentation: Changes images at random in training.
    """

    def __init__(self, network: nn.Module, named: NonNegativeInt, augmentation: nn.Module | None = None) -> None:
        super().__init__(classifier=CleanAttributes(network, named))
        self.augmentation = augmentation

    def on_train_start(self) -> None:
        """See whether the data have these attributes."""
        data = self.trainer.datamodule
        self.classifier.check(data.attribute_names, data.data_task)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, code = batch["labeled"]
        if self.training and self.augmentation is not None:
            x = self.augmentation(x)
        logits = self.classifier.attribute_logits(x)
        attributes = attributes_of(code, self.classifier.count).to(logits.dtype)
        return {"classify": F.binary_cross_entropy_with_logits(logits, attributes)}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, and the mean ``accuracy`` over all attributes."""
        x, code = batch["labeled"]
        loss = self.losses(batch)["classify"].detach()
        attributes = attributes_of(code, self.classifier.count)
        accuracy = attribute_accuracy(self.classifier.attribute_logits(x), attributes)
        return {"loss": loss, "classify": loss, "accuracy": accuracy}

    test_step = validation_step
