"""USPS, SVHN and CIFAR as torchvision stores them, in the data root or a folder of the data set's name below it."""

from typing import ClassVar, Literal

import numpy as np

from datamodules import downloads
from datamodules.stored import PublishedImages

Part = Literal["train", "test"]
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_NAMES = tuple(_FINE.split())


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
    class_names = CIFAR10_NAMES
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
    class_names = CIFAR100_NAMES
    native = (3, 32, 32)
    data_classes = 100
    sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}

    def read(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        return downloads.cifar(100, self.root, part, self.download)
