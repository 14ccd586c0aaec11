"""Any data set that is a folder of images for each class."""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt

from datamodules.image_files import CACHE, AsStored, class_folders, kept_images, unusable
from datamodules.splits import stratified
from datamodules.stored import StoredImages, data_root, missing


class ImageFolder(StoredImages):
    """PNG and JPEG files, 8-bit grey or RGB, in ``train/<class>/`` and ``test/<class>/`` below ``<root>/<name>``.

    Classes are numbered in the order of their names. Without ``train`` and ``test``, ``<class>/`` lies directly there
    and ``test_fraction`` says how many images of each class are set apart; the runs' seeds do not change which. The
    pixels are kept in ``<root>/.diffclass-cache``, which may be deleted.

    Args:
        name: Name of the data set in results, and of its folder below the root.
        root: Folder of the data sets; the environment variable DIFFCLASS_DATA when not given, else ``data`` in the
            working folder.
        resize: Height and width in pixels to scale to, bilinear, whatever the aspect; needed where sizes differ.
        test_fraction: Share of the images that is the test part, stratified, where there is no test folder.
        test_seed: Seed of that test part.
        kwargs: Arguments of stored images and of every data set.
    """

    def __init__(
        self,
        name: str,
        root: str | None = None,
        resize: PositiveInt | None = None,
        test_fraction: OpenUnitInterval | None = None,
        test_seed: NonNegativeInt = 0,
        **kwargs: Any,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", name):
            raise ValueError(f"name must be up to 64 letters, digits, '.', '_' or '-', no '.' first, got {name!r}")
        self.name = name
        folder = data_root(root) / name
        if not folder.is_dir():
            raise missing(f"folder of images {name}", data_root(root))
        parts = _parts(folder, test_fraction)
        self.class_names = list(parts[0])
        self.data_classes = len(self.class_names)
        files = [file for part in parts for of_class in part.values() for file in of_class]
        self._images = kept_images(files, folder, data_root(root) / CACHE, AsStored(resize))
        self._y = np.concatenate([np.repeat(np.arange(len(part)), [len(f) for f in part.values()]) for part in parts])
        self._rows = self._official(parts, test_fraction, test_seed)
        self.native = self._images.shape[1:]
        super().__init__(root=root, resize=resize, **kwargs)

    def _official(
        self, parts: list[dict[str, list[Path]]], fraction: float | None, seed: int
    ) -> dict[str, np.ndarray | slice]:
        """Which images are which part; as slices where they lie together, which copy nothing."""
        if fraction is None:
            first = sum(map(len, parts[0].values()))
            return {"train": slice(first), "test": slice(first, None)}
        rows = np.arange(len(self._y))
        rng = np.random.default_rng([seed, 6])
        test = stratified(self._y, round(fraction * len(rows)), self.data_classes, rng)
        train = np.setdiff1d(rows, test)
        if np.bincount(self._y[train], minlength=self.data_classes).min() < 1:
            raise ValueError(f"test_fraction {fraction} leaves a class without training images")
        return {"train": train, "test": test}

    def read(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows[part]
        return self._images[rows], self._y[rows]


def _parts(folder: Path, test_fraction: float | None) -> list[dict[str, list[Path]]]:
    """Images of each class of the training and test folders, or of the one folder to be split."""
    official = [folder / part for part in ("train", "test")]
    there = [part for part in official if part.is_dir()]
    if len(there) == 1:
        raise unusable(
            folder, f"it has a folder {there[0].name} but no {'test' if there[0] == official[0] else 'train'}"
        )
    if not there:
        if test_fraction is None:
            raise unusable(
                folder, "no folders train and test in it; add them, or give test_fraction to set images apart"
            )
        return [class_folders(folder)]
    if test_fraction is not None:
        raise unusable(folder, f"it has a folder test; leave out test_fraction, got {test_fraction}")
    train, test = map(class_folders, there)
    if train.keys() != test.keys():
        lone = min(train.keys() ^ test.keys())
        raise unusable(folder, f"class {lone} is in one of train and test only; both need the same classes")
    return [train, test]
