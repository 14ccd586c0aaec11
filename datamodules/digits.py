"""The 1,797 hand-written digits that scikit-learn ships: 8x8 pixels of 17 grey levels."""

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from datamodules.grey_levels import GreyLevels
from datamodules.in_memory import ImagesInMemory


class Digits(ImagesInMemory):
    """Optical recognition of handwritten digits (UCI; the copy in scikit-learn), 1,437 to train and 360 to test.

    The test part is stratified and drawn with seed 0, whatever the run's seeds.
    """

    name = "digits"
    shape = (1, 8, 8)
    data_classes = 10
    grey = GreyLevels(17)
    sources: ClassVar[tuple[Path, ...]] = ()

    def load(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        return _parts()[part]


@lru_cache
def _parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    images, y = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, *Digits.shape)
    train, test, y_train, y_test = train_test_split(images, y, test_size=360, stratify=y, random_state=0)
    return {"train": (train, y_train), "test": (test, y_test)}
