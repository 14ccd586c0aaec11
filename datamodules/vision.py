"""USPS, SVHN and CIFAR as torchvision stores them, in the data root or a folder of the data set's name below it."""

from typing import ClassVar, Literal

import numpy as np

from datamodules import downloads
from datamodules.stored import PublishedImages

Part = Literal["train", "test"]


class USPS(PublishedImages):
    """Digits of postal codes, 7,291 to train and 2,007 to test, 16x16 grey, in ``usps.bz2`` and ``usps.t.bz2``.

    Source: Hull 1994, "A database for handwritten text recognition research".
    """

    name = "usps"
    native = (1, 16, 16)
    data_classes = 10
    sizes: ClassVar[dict[str, int]] = {"train": 7_291, "test": 2_007}

    def read(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        return downloads.usps(self.root, part, self.download)


class SVHN(PublishedImages):
    """House numbers in street views, 73,257 to train and 26,032 to test, 32x32 RGB, without the extra images.

    In ``train_32x32.mat`` and ``test_32x32.mat``. The class of a digit is the digit.

    Source: Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning".
    """

    name = "svhn"
    native = (3, 32, 32)
    data_classes = 10
    sizes: ClassVar[dict[str, int]] = {"train": 73_257, "test": 26_032}

    def read(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        return downloads.svhn(self.root, part, self.download)


class CIFAR10(PublishedImages):
    """Natural images of 10 classes, 50,000 to train and 10,000 to test, 32x32 RGB, in ``cifar-10-batches-py``.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    name = "cifar10"
    native = (3, 32, 32)
    data_classes = 10
    sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}

    def read(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        return downloads.cifar(10, self.root, part, self.download)


class CIFAR100(PublishedImages):
    """Natural images of 100 fine classes, 50,000 to train and 10,000 to test, 32x32 RGB, in ``cifar-100-python``.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    name = "cifar100"
    native = (3, 32, 32)
    data_classes = 100
    sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}

    def read(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        return downloads.cifar(100, self.root, part, self.download)
