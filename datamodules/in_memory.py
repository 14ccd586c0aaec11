"""Data sets that fit in memory as one tensor."""

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import ImageData, Part
from datamodules.batches import EvaluationBatches, TrainingBatches


class ImagesInMemory(ImageData):
    """Images as one tensor for each part; the training part lies on the trainer's device.

    Args:
        kwargs: Arguments of every data set.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.stands_in:
            self._parts = {part: self.stand_in(part) for part in ("train", "validation", "test")}
        else:
            images, y = self._official.pop("train")
            self._parts = {part: self._tensors(images, y, self.splits[part]) for part in ("train", "validation")}

    @abstractmethod
    def load(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels ``(N, C, H, W)`` of the type of ``grey`` and labels ``(N,)`` of the official parts."""

    def training_labels(self) -> np.ndarray:
        images, y = self.load("train")
        self._official = {"train": (images, self.checked(y, "train"))}
        return y

    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        if part not in self._parts:
            images, y = self.load("test")
            self._parts["test"] = self._tensors(images, self.checked(y, "test"))
        return self._parts[part]

    def _tensors(self, images: np.ndarray, y: np.ndarray, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.ascontiguousarray(images[rows])), self.task_labels(y[rows])

    def train_dataloader(self) -> TrainingBatches:
        return TrainingBatches(self, *self.images("train"), self.pools())

    def val_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "validation")

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self, "test")
