"""The contract of a data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt
from lightning import LightningDataModule
from torch import Tensor

from datamodules.batches import EvaluationBatches, TrainingBatches
from datamodules.grey_levels import GreyLevels
from datamodules.splits import LabelSplit, stratified
from datamodules.transforms import Augmentation

Part = Literal["train", "validation", "test"]

_standing_in: ContextVar[bool] = ContextVar("standing_in", default=False)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Data sets made in here, of known size, hold as many black images of every class in turn; their files stay unread.

    For what asks for shapes and counts alone, such as a forecast of costs.
    """
    token = _standing_in.set(True)
    try:
        yield
    finally:
        _standing_in.reset(token)


class ImageData(LightningDataModule, ABC):
    """A small image data set as one uint8 tensor, with a validation part carved from the training part.

    Batches are ``{"labeled": (x, y)}``, with ``"unlabeled": x`` where an unlabeled batch size is given. Images are in
    [-1, 1], dequantised. Batch ``k`` depends on ``(seed, k)`` alone, so that a resumed run repeats and skips
    nothing.

    Args:
        batch_size: Labeled images a step, over all devices.
        unlabeled_batch_size: Unlabeled images a step, over all devices; 0 leaves them out.
        labels: Which images are labeled; all of them when not given.
        validation_fraction: Share of the training part held out for choices, stratified.
        split_seed: Seed of the splits.
        seed: Seed of order, augmentation and dequantisation; the run's seed.
    """

    name: str
    shape: tuple[int, int, int]
    data_classes: int
    grey: GreyLevels
    sizes: ClassVar[dict[str, int]] = {}
    """Images in the official ``train`` and ``test`` parts, where that is known before they are read."""
    augmentation = Augmentation()
    """What is done to training images at random; nothing, unless a data set says so."""

    def __init__(
        self,
        batch_size: PositiveInt = 128,
        unlabeled_batch_size: NonNegativeInt = 0,
        labels: LabelSplit | None = None,
        validation_fraction: OpenUnitInterval = 0.1,
        split_seed: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.labels, self.validation_fraction = labels, validation_fraction
        self.split_seed, self.seed = split_seed, seed
        self._stands_in = bool(self.sizes) and _standing_in.get()
        self._parts: dict[str, tuple[Tensor, Tensor]] = {}
        self.classes = self.data_classes if labels is None else labels.classes(self.data_classes)
        self._split()

    @abstractmethod
    def load(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels uint8 ``(N, C, H, W)`` and labels ``(N,)`` of the official parts."""

    def _loaded(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        if self._stands_in:
            n = self.sizes[part]
            return np.zeros((n, *self.shape), np.uint8), np.arange(n) % self.data_classes
        images, y = self.load(part)
        outside = np.setdiff1d(y, np.arange(self.data_classes))
        if len(outside):
            raise ValueError(
                f"{self.name}: the {part} part holds the label {outside[0]}, the classes are 0..{self.data_classes - 1}"
            )
        return images, y

    def _split(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in (0, 1), got {self.validation_fraction}")
        images, y = self._loaded("train")
        held_out = stratified(
            y,
            round(self.validation_fraction * len(y)),
            self.data_classes,
            np.random.default_rng([self.split_seed, 0]),
        )
        kept = np.setdiff1d(np.arange(len(y)), held_out)
        if np.bincount(y[kept], minlength=self.data_classes).min() < 1:
            raise ValueError(f"validation_fraction {self.validation_fraction} leaves a class without training images")
        rng = np.random.default_rng([self.split_seed, 1])
        every = np.arange(len(kept))
        labeled = every if self.labels is None else self.labels.labeled(y[kept], self.data_classes, rng)
        task = y if self.labels is None else self.labels.relabel(y)
        self._parts["train"] = _tensors(images[kept], task[kept])
        self._parts["validation"] = _tensors(images[held_out], task[held_out])
        self.labeled_indices = labeled
        self.unlabeled_indices = np.setdiff1d(every, labeled)
        self.splits = {"train": kept, "validation": held_out, "labeled": kept[labeled]}

    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        """Grey levels uint8 ``(N, C, H, W)`` and the task's true labels int64 ``(N,)`` of a part."""
        if part not in self._parts:
            images, y = self._loaded("test")
            self._parts["test"] = _tensors(images, y if self.labels is None else self.labels.relabel(y))
        return self._parts[part]

    def some_images(self, part: Part, count: int | None, seed: list[int]) -> tuple[Tensor, Tensor]:
        """``images`` of a part, or ``count`` of them with the class proportions of all if there are more."""
        u, y = self.images(part)
        if count is None or count >= len(y):
            return u, y
        rows = torch.from_numpy(stratified(y.numpy(), count, self.classes, np.random.default_rng(seed)))
        return u[rows], y[rows]

    @property
    def task(self) -> str | None:
        """What is told apart, where that is not the data set's classes."""
        return None if self.labels is None else self.labels.task

    @property
    def task_classes(self) -> np.ndarray:
        """The task's class of each class of the data set, ``(data_classes,)``."""
        classes = np.arange(self.data_classes)
        return classes if self.labels is None else self.labels.relabel(classes)

    @property
    def class_prior(self) -> Tensor:
        """Share of each class in the unlabeled pool, or in the training part where all is labeled, ``(K,)``."""
        _, y = self._parts["train"]
        pool = y[self.unlabeled_indices] if len(self.unlabeled_indices) else y
        return torch.bincount(pool, minlength=self.classes) / len(pool)

    @property
    def n_labeled(self) -> int:
        """Labeled training images."""
        return len(self.labeled_indices)

    def train_dataloader(self) -> TrainingBatches:
        images, y = self.images("train")
        pools = {"labeled": (torch.as_tensor(self.labeled_indices), self.batch_size)}
        if self.unlabeled_batch_size:
            # With every label known there is no pool apart; all images then serve without their labels.
            pool = self.unlabeled_indices if len(self.unlabeled_indices) else np.arange(len(y))
            pools["unlabeled"] = (torch.as_tensor(pool), self.unlabeled_batch_size)
        return TrainingBatches(self, images, y, pools)

    def val_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "validation")

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "test")

    def predict_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "test")

    def augmented(self, u: Tensor, *key: int) -> Tensor:
        """Grey levels changed at random as the data set's augmentation says, a function of ``key``."""
        return self.augmentation(u, np.random.default_rng([self.seed, *key]))

    def dequantised(self, u: Tensor, *key: int) -> Tensor:
        """Images with uniform noise inside their bins, a function of ``key``."""
        v = np.random.default_rng([self.seed, *key]).random(u.shape, dtype=np.float32)
        return self.grey.dequantise(u, torch.from_numpy(v).to(u.device))


def _tensors(images: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(y.astype(np.int64))
