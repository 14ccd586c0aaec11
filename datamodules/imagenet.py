"""ImageNet, read from its files batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt
from PIL import Image
from torch import Tensor

from datamodules.base import ImageData, Part, standing_in
from datamodules.batches import EvaluationBatches, TrainingBatches
from datamodules.fingerprints import of_files
from datamodules.grey_levels import GreyLevels
from datamodules.image_files import CACHE, SUFFIXES, class_folders, kept_images, opened, unusable
from datamodules.splits import take_per_class
from datamodules.stored import data_root, missing
from datamodules.streamed import Files, Reader, RowNumbers, StreamedBatches
from datamodules.transforms import Augmentation

EVALUATION_BATCH = 64
"""Images at once in validation and test."""


class ImageNet(ImageData):
    """Photographs of 1,000 classes, 1,281,167 to train and 50,000 to test, centre crops of 256x256 RGB.

    Found as ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG`` in ``<root>/imagenet``; classes are numbered in the order
    of their names, and the official validation part is the test part. Fewer classes have a name of their own, such as
    imagenet100-256. Batches are read from the files by worker processes and are never all in memory.

    Whole parts are asked for by reference statistics. They get ``reference_images`` of them, equally many of each
    class, drawn with seed 0 whatever the run's seeds, read when first asked for and kept in
    ``<root>/.diffclass-cache`` (10 GB for 50,000 images of 256 pixels), which may be deleted.

    Source: Deng et al. 2009, "ImageNet: a large-scale hierarchical image database"; images prepared as by Dhariwal and
    Nichol 2021 (arXiv:2105.05233).

    Args:
        root: Folder of the data sets; the environment variable DIFFCLASS_DATA when not given, else ``data`` in the
            working folder.
        size: Height and width in pixels.
        flip: Whether training images are mirrored left and right at random.
        reference_images: Images of a part that stand for it where it is asked for whole; all where it has fewer.
        workers: Processes that read files, on each device.
        validation_fraction: Share of the training part held out for choices, stratified.
        kwargs: Arguments of every data set.

    Raises:
        FileNotFoundError: If the images are not there.
        ValueError: If a file or folder cannot be used, or an argument does not fit the images.
    """

    data_classes = 1000
    grey = GreyLevels(256)
    sizes: ClassVar[dict[str, int]] = {"train": 1_281_167, "test": 50_000}

    def __init__(
        self,
        root: str | None = None,
        size: PositiveInt = 256,
        flip: bool = True,
        reference_images: PositiveInt = 50_000,
        workers: NonNegativeInt = 4,
        validation_fraction: OpenUnitInterval = 0.01,
        **kwargs: Any,
    ) -> None:
        self.root, self.read = data_root(root), CentreCrop(size)
        self._files: dict[str, Files] = {}
        self._y: dict[str, np.ndarray] = {}
        self._whole: dict[str, tuple[Tensor, Tensor]] = {}
        if not standing_in():
            self._find(self.root / "imagenet")
        self.name = f"imagenet{'' if self.data_classes == 1000 else self.data_classes}-{size}"
        self.shape, self.augmentation = (3, size, size), Augmentation(flip=flip)
        if reference_images % self.data_classes:
            raise ValueError(
                f"reference_images must be a multiple of the {self.data_classes} classes, got {reference_images}"
            )
        self.reference_images, self.workers = reference_images, workers
        super().__init__(validation_fraction=validation_fraction, **kwargs)

    def _find(self, folder: Path) -> None:
        """Files and classes of the official parts."""
        train, test = (_classes(folder, part) for part in ("train", "val"))
        if train.keys() != test.keys():
            lone = min(train.keys() ^ test.keys())
            raise unusable(folder, f"class {lone} is in one of train and val only; both need the same classes")
        self.class_names = list(train)
        self.data_classes = len(train)
        for part, classes in (("train", train), ("test", test)):
            self._files[part] = Files.at([file for files in classes.values() for file in files], folder)
            self._y[part] = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(self.root / "imagenet" / part for part in ("train", "val"))

    def fingerprint(self, part: Literal["train", "test"]) -> str | None:
        """Hash of the files' names and sizes, and of what some of them hold; None where the data set stands in."""
        return None if self.stands_in else of_files(self._files[part])

    def training_labels(self) -> np.ndarray:
        return self._y["train"]

    def _part(self, part: Part) -> tuple[Files, np.ndarray]:
        """Files and the data set's classes of a part."""
        if part == "test":
            return self._files["test"], self._y["test"]
        rows = self.splits[part]
        return self._files["train"].of(rows), self._y["train"][rows]

    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        if part not in self._whole:
            self._whole[part] = self._kept(part)
        return self._whole[part]

    def _kept(self, part: Part) -> tuple[Tensor, Tensor]:
        if self.stands_in:
            u, y = self.stand_in(part)
            return u[: self.reference_images], y[: self.reference_images]
        files, y = self._part(part)
        if len(y) > self.reference_images:
            each = np.full(self.data_classes, self.reference_images // self.data_classes)
            rows = take_per_class(y, each, np.random.default_rng([0, 8]))
            files, y = files.of(rows), y[rows]
        images = kept_images(list(files), files.below, self.root / CACHE, self.read)
        return torch.from_numpy(images), self.task_labels(y)

    def train_dataloader(self) -> StreamedBatches:
        files, y = self._part("train")
        numbers = RowNumbers(self, self.task_labels(y))
        batches = TrainingBatches(numbers, *numbers.images("train"), self.pools())
        reader = Reader(files, self.read, self.augmentation, self.grey, self.device)
        return StreamedBatches(batches, reader, self.workers)

    def val_dataloader(self) -> StreamedBatches:
        return self._once("validation")

    def test_dataloader(self) -> StreamedBatches:
        return self._once("test")

    def blocks(self, part: Part, size: int) -> Iterator[Tensor]:
        if self.stands_in:
            yield from super().blocks(part, size)
            return
        files, y = self._part(part)
        numbers = EvaluationBatches(RowNumbers(self, self.task_labels(y)), part, size)
        reader = Reader(files, self.read, Augmentation(), self.grey, None)
        for batch in StreamedBatches(numbers, reader, self.workers):
            yield batch["labeled"][0]

    def _once(self, part: Part) -> StreamedBatches:
        files, y = self._part(part)
        batches = EvaluationBatches(RowNumbers(self, self.task_labels(y)), part, EVALUATION_BATCH)
        return StreamedBatches(batches, Reader(files, self.read, Augmentation(), self.grey, self.device), self.workers)


@dataclass(frozen=True)
class CentreCrop:
    """The middle square of an image in RGB: halved by averages while twice as large as needed, then bicubic.

    Args:
        size: Height and width in pixels, of the shorter side before the crop.
    """

    size: int

    def __call__(self, path: Path) -> np.ndarray:
        image = opened(path).image.convert("RGB")  # a few are CMYK, one is a PNG, many are grey
        while min(image.size) >= 2 * self.size:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        scale = self.size / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.array(image.crop((left, top, left + self.size, top + self.size)))


def _classes(folder: Path, part: str) -> dict[str, list[Path]]:
    """Files of each class of the folder of a part."""
    if not (folder / part).is_dir():
        raise missing(f"folder {part} of ImageNet", folder, remedy="; ImageNet's images must lie there by class")
    if any(entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in (folder / part).iterdir()):
        raise unusable(folder / part, "images lie directly in it; move each into a folder of the name of its class")
    return class_folders(folder / part)
