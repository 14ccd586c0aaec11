"""MNIST and Fashion-MNIST from their idx files, wherever torchvision or a person put them."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from datamodules import downloads
from datamodules.idx import damaged, read_idx
from datamodules.stored import PublishedImages, missing

COUNTS = {"train": 60_000, "test": 10_000}


class MNIST(PublishedImages):
    """Handwritten digits, 60,000 to train and 10,000 to test, 28x28 grey.

    Found as ``train-images-idx3-ubyte`` and its three siblings, with or without ``.gz``, in ``mnist`` or ``MNIST/raw``
    below the root, packed or not.

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition".
    """

    name = "mnist"
    native = (1, 28, 28)
    data_classes = 10
    sizes: ClassVar[dict[str, int]] = COUNTS
    folders: ClassVar[tuple[str, ...]] = ("mnist", "MNIST/raw")
    digests: ClassVar[dict[str, str]] = {}
    """sha256 of unpacked files, where known."""

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(self.root / folder for folder in self.folders)

    def read(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        prefix = "train" if part == "train" else "t10k"
        images = self._idx(f"{prefix}-images-idx3-ubyte", (COUNTS[part], *self.native[1:]))
        y = self._idx(f"{prefix}-labels-idx1-ubyte", (COUNTS[part],))
        return images[:, None], y

    def _idx(self, file: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self._find(file)
        if path is None and self.download:
            downloads.idx_files(self.stored_as, self.root)
            path = self._find(file)
        if path is None:
            places = [self.root / folder for folder in self.folders]
            raise missing(f"{file}[.gz] of {self.stored_as}", *places, remedy=", or set download: true")
        values = read_idx(path, shape, self.digests.get(file))
        if len(shape) == 1 and values.max() >= self.data_classes:
            raise damaged(path, f"it holds the label {values.max()}, the classes are 0..{self.data_classes - 1}")
        return values

    def _find(self, file: str) -> Path | None:
        paths = (self.root / folder / f"{file}{suffix}" for folder in self.folders for suffix in ("", ".gz"))
        return next((path for path in paths if path.is_file()), None)


class FashionMNIST(MNIST):
    """Pictures of clothes, 60,000 to train and 10,000 to test, 28x28 grey.

    Found as MNIST is, in ``fashion-mnist`` or ``FashionMNIST/raw`` below the root.

    Source: Xiao et al. 2017 (arXiv:1708.07747).
    """

    name = "fashion-mnist"
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    folders = ("fashion-mnist", "FashionMNIST/raw")
    digests: ClassVar[dict[str, str]] = {
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    }
