"""Two data sets of the same classes: labels of the source, and how well that serves on the target."""

from abc import ABC
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor

from datamodules.base import ImageData, Part
from datamodules.batches import EvaluationBatches, TrainingBatches
from datamodules.fingerprints import of_several
from datamodules.in_memory import ImagesInMemory
from methods import UNLABELED


class Domains(ImageData, ABC):
    """Labels, and choices, by the source's images; the test part is the target's. No batch holds a target's label.

    Each data set is split and prepared as its own arguments say; its batch sizes and seed do not matter.

    Args:
        source: The data set whose labels are known.
        target: The data set that is tested on.
        batch_size: See ``ImageData``.
        unlabeled_batch_size: See ``ImageData``.
        seed: See ``ImageData``.

    Raises:
        ValueError: If the two differ in shape, grey levels, classes or augmentation, or have other tasks than their
            classes.
    """

    def __init__(
        self,
        source: ImagesInMemory,
        target: ImagesInMemory,
        batch_size: PositiveInt = 128,
        unlabeled_batch_size: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
    ) -> None:
        _check_alike(source, target)
        self.source, self.target = source, target
        self.name = f"{source.name}-to-{target.name}"
        self.data_task = f"{source.name} to {target.name}"
        self.shape, self.data_classes, self.grey = source.shape, source.data_classes, source.grey
        self.class_names = source.class_names
        self.augmentation, self.official_validation = source.augmentation, source.splits["validation"]
        super().__init__(batch_size, unlabeled_batch_size, None, source.validation_fraction, source.split_seed, seed)
        self.splits["target"] = target.splits["train"]

    def training_labels(self) -> np.ndarray:
        parts = ("train", "validation")
        y = np.concatenate([self.source.images(part)[1].numpy() for part in parts])
        return y[np.argsort(np.concatenate([self.source.splits[part] for part in parts]))]

    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        return self.target.images("test") if part == "test" else self.source.images(part)

    @property
    def sources(self) -> tuple[Path, ...] | None:
        told = (self.source.sources, self.target.sources)
        return None if None in told else (*told[0], *told[1])

    def fingerprint(self, part: Literal["train", "test"]) -> str | None:
        """Hash of a part, to train of the source's images and of both parts of the target's."""
        if part == "test":
            return self.target.fingerprint("test")
        return of_several(data.fingerprint("train") for data in (self.source, self.target))

    def target_images(self) -> tuple[Tensor, Tensor]:
        """Grey levels ``(N, C, H, W)`` of the target's training part, and ``UNLABELED`` for each, ``(N,)``."""
        u, y = self.target.images("train")
        return u, torch.full_like(y, UNLABELED)

    def val_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "validation")

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "test")


class LabeledSource(Domains):
    """Labeled images of the source and, with an unlabeled batch size, unlabeled ones of the target's training part."""

    def pools(self) -> dict[str, tuple[Tensor, int]]:
        n = len(self._train_y)
        pools = {"labeled": (torch.arange(n), self.batch_size)}
        if self.unlabeled_batch_size:
            of_target = n + torch.arange(len(self.splits["target"]))
            pools["unlabeled"] = (of_target, self.unlabeled_batch_size)
        return pools

    def train_dataloader(self) -> TrainingBatches:
        u, y = self.source.images("train")
        if self.unlabeled_batch_size:
            of_target, unlabeled = self.target_images()
            u, y = torch.cat([u, of_target]), torch.cat([y, unlabeled])
        return TrainingBatches(self, u, y, self.pools())


class UnlabeledTarget(Domains):
    """The second of two trainings: the target's images alone, as ``"labeled": (x, y)`` with ``y`` all ``UNLABELED``.

    Its labeled images are those of the source, which the first training saw.

    Args:
        source: See ``Domains``.
        target: See ``Domains``.
        batch_size: Images an optimiser step.
        seed: See ``ImageData``.
    """

    def __init__(
        self,
        source: ImagesInMemory,
        target: ImagesInMemory,
        batch_size: PositiveInt = 128,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(source, target, batch_size, 0, seed)

    def pools(self) -> dict[str, tuple[Tensor, int]]:
        return {"labeled": (torch.arange(len(self.splits["target"])), self.batch_size)}

    def train_dataloader(self) -> TrainingBatches:
        return TrainingBatches(self, *self.target_images(), self.pools())


def _check_alike(source: ImagesInMemory, target: ImagesInMemory) -> None:
    for data in (source, target):
        if data.labels is not None:
            raise ValueError(f"all labels of {data.name} belong to its classes here; leave out its key 'labels'")
    for what, own, other in (
        ("image shape", source.shape, target.shape),
        ("number of grey levels", source.grey.count, target.grey.count),
        ("number of classes", source.data_classes, target.data_classes),
        ("augmentation", source.augmentation, target.augmentation),
    ):
        if own != other:
            raise ValueError(f"source and target must have one {what}, {source.name} has {own}, {target.name} {other}")
