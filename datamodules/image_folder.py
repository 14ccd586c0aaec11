"""Any data set that is a folder of images for each class."""

import re
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt

from datamodules.image_files import CACHE, AsStored, folders_of_parts, kept_images
from datamodules.splits import stratified
from datamodules.stored import StoredImages, data_root, missing


class ImageFolder(StoredImages):
    """PNG and JPEG files, 8-bit grey or RGB, in ``train/<class>/`` and ``test/<class>/`` below ``<root>/<name>``.

    A folder ``val`` (or ``valid``, ``validation``, ``dev``) beside them is the validation part, and
    ``validation_fraction`` then has no effect. Classes are numbered in the order of their names, or by these where all
    are numbers: ``10`` comes after ``9``. Without ``train`` and ``test``, ``<class>/`` lies directly there and
    ``test_fraction`` says how many images of each class are set apart; the runs' seeds do not change which. The pixels
    are kept in ``<root>/.diffclass-cache``, which may be deleted.

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
        parts = folders_of_parts(folder, test_fraction)
        self.class_names = list(next(iter(parts.values())))
        self.data_classes = len(self.class_names)
        files = [file for part in parts.values() for name in self.class_names for file in part.get(name, [])]
        self._images = kept_images(files, folder, data_root(root) / CACHE, AsStored(resize))
        counts = {part: [len(found.get(name, [])) for name in self.class_names] for part, found in parts.items()}
        self._y = np.concatenate([np.repeat(np.arange(self.data_classes), count) for count in counts.values()])
        self._rows = self._official({name: sum(count) for name, count in counts.items()}, test_fraction, test_seed)
        if "validation" in counts:
            first, held_out = sum(counts["train"]), sum(counts["validation"])
            self.official_validation = np.arange(first, first + held_out)
            kwargs["validation_fraction"] = held_out / (first + held_out)
        self.native = self._images.shape[1:]
        super().__init__(root=root, resize=resize, **kwargs)

    def _official(self, sizes: dict[str, int], fraction: float | None, seed: int) -> dict[str, np.ndarray | slice]:
        """Rows of each part; as slices where they lie together, which copy nothing."""
        if fraction is None:
            first = sum(sizes.values()) - sizes["test"]
            return {"train": slice(first), "test": slice(first, None)}
        rows = np.arange(len(self._y))
        rng = np.random.default_rng([seed, 6])
        try:
            test = stratified(self._y, round(fraction * len(rows)), self.data_classes, rng)
        except ValueError as error:
            raise ValueError(f"test_fraction {fraction}: {error}") from None
        train = np.setdiff1d(rows, test)
        if np.bincount(self._y[train], minlength=self.data_classes).min() < 1:
            raise ValueError(f"test_fraction {fraction} leaves a class without training images")
        return {"train": train, "test": test}

    def read(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows[part]
        return self._images[rows], self._y[rows]
