"""Data sets that lie in files below a data root, prepared and augmented as stated."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.averaging import averaged
from datamodules.grey_levels import GreyLevels
from datamodules.in_memory import ImagesInMemory
from datamodules.transforms import Augmentation, Preparation, Shape

VARIABLE = "DIFFCLASS_DATA"


def data_root(root: str | None) -> Path:
    """The folder of the data sets: as given, else the environment's ``DIFFCLASS_DATA``, else ``data`` here."""
    return Path(root or os.environ.get(VARIABLE) or "data").expanduser().absolute()


def missing(what: str, *folders: Path, remedy: str = "") -> FileNotFoundError:
    """The error that ``what`` lies in none of ``folders``, with what to do about it."""
    looked_in = " or ".join(str(folder) for folder in folders)
    return FileNotFoundError(f"no {what} in {looked_in}; set root or {VARIABLE} to the folder of the data sets{remedy}")


class StoredImages(ImagesInMemory):
    """Images of 256 grey levels below a data root.

    Args:
        root: Folder of the data sets; the environment variable DIFFCLASS_DATA when not given, else ``data`` in the
            working folder.
        average_to: Height and width in pixels to average to, by exact areas, before any other change. The data set then
            is another one, which results name after it: ``fashion-mnist-16`` for 16.
        resize: Height and width in pixels to scale to, bilinear; as stored when not given.
        pad_to: Height and width in pixels to pad to with grey level 0, after scaling.
        rgb: Whether grey images become three equal channels.
        flip: Whether training images are mirrored left and right at random.
        crop_padding: Reflected pixels around training images before they are cropped at random; 0 for no crop.
        kwargs: Arguments of every data set.

    Raises:
        FileNotFoundError: If the images are not there.
        ValueError: If a file cannot be used, or an argument does not fit the images.
    """

    native: Shape
    """Shape ``(C, H, W)`` of the images as stored."""
    stored_as: str
    """Name of the data set as stored, and of its folder; ``name`` says also what they were averaged to."""
    grey = GreyLevels(256)

    def __init__(
        self,
        root: str | None = None,
        average_to: PositiveInt | None = None,
        resize: PositiveInt | None = None,
        pad_to: PositiveInt | None = None,
        rgb: bool = False,
        flip: bool = False,
        crop_padding: NonNegativeInt = 0,
        **kwargs: Any,
    ) -> None:
        self.root = data_root(root)
        self.stored_as, self.average_to = self.name, average_to
        native = self.native
        if average_to is not None:
            if average_to > min(native[1:]):
                raise ValueError(f"average_to must be at most the image's {min(native[1:])} pixels, got {average_to}")
            self.name, native = f"{self.name}-{average_to}", (native[0], int(average_to), int(average_to))
        self.preparation = Preparation(resize, pad_to, rgb)
        self.shape = self.preparation.shape(native)
        self.augmentation = Augmentation(flip, crop_padding)
        self.augmentation.check(self.shape)
        super().__init__(**kwargs)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folder of the data set's name below the root."""
        return (self.root / self.stored_as,)

    @abstractmethod
    def read(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels uint8 ``(N, *native)`` and labels ``(N,)`` of the official parts."""

    def load(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        images, y = self.read(part)
        if self.average_to is not None:
            images = averaged(images, self.average_to)
        return self.preparation(images), y


class PublishedImages(StoredImages):
    """Images that can be downloaded to the data root.

    Args:
        download: Whether to download what is not there.
        kwargs: Arguments of stored images and of every data set.
    """

    def __init__(self, download: bool = False, **kwargs: Any) -> None:
        self.download = download
        super().__init__(**kwargs)
