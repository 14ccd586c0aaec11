"""CelebA at 64 pixels, cropped as the diffusion papers do, with one attribute as the class."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from datamodules.base import standing_in
from datamodules.image_files import CACHE, decode, kept_images, unusable
from datamodules.stored import StoredImages, data_root, missing
from datamodules.transforms import resized

COUNTS = {"train": 162_770, "validation": 19_867, "test": 19_962}
FOLDER, PARTITION, ATTRIBUTES = "img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"


class CelebA(StoredImages):
    """Faces, 162,770 to train, 19,867 to validate and 19,962 to test by the official partition, 64x64 RGB.

    Found as torchvision lays it out: ``img_align_celeba/*.jpg``, ``list_eval_partition.txt`` and
    ``list_attr_celeba.txt`` in ``<root>/celeba``. Of the aligned images, the square of 128 pixels around row 121 and
    column 89 is halved to 64, bilinear. Pixels are kept in ``<root>/.diffclass-cache`` (2.5 GB), which may be deleted;
    reading them the first time takes minutes.

    Class 1 has the attribute, class 0 has it not. No method here tells all 40 attributes apart at once.

    Source: Liu et al. 2015 (arXiv:1411.7766); the crop as in the code of Song et al. 2021 (arXiv:2010.02502).

    Args:
        root: Folder of the data sets; the environment variable DIFFCLASS_DATA when not given, else ``data`` in the
            working folder.
        attribute: Name of the attribute, as in the first lines of ``list_attr_celeba.txt``.
        kwargs: Arguments of stored images and of every data set.
    """

    name = "celeba"
    native = (3, 64, 64)
    data_classes = 2
    sizes: ClassVar[dict[str, int]] = {"train": COUNTS["train"] + COUNTS["validation"], "test": COUNTS["test"]}

    def __init__(self, root: str | None = None, attribute: str = "Smiling", **kwargs: Any) -> None:
        self.data_task = attribute
        self.class_names = [f"not {attribute}", attribute]
        if not standing_in():
            self._find(data_root(root), attribute)
        first, held_out, _ = COUNTS.values()
        self._rows = {"train": slice(first + held_out), "test": slice(first + held_out, None)}
        self.official_validation = np.arange(first, first + held_out)
        super().__init__(root=root, validation_fraction=held_out / sum(COUNTS.values()), **kwargs)

    def _find(self, root: Path, attribute: str) -> None:
        """Pixels and labels of all images, those to train first, then those to validate and to test."""
        folder = root / self.name
        for what in (PARTITION, ATTRIBUTES, FOLDER):
            if not (folder / what).exists():
                raise missing(f"{what} of {self.name}", folder, remedy="; it comes with CelebA's aligned images")
        names = _partition(folder / PARTITION)
        self._y = _attribute(folder / ATTRIBUTES, attribute, names)
        self._images = kept_images(_images(folder / FOLDER, names), folder, root / CACHE, AlignedCrop())

    def read(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows[part]
        return self._images[rows], self._y[rows]


@dataclass(frozen=True)
class AlignedCrop:
    """The square around the face of an aligned image, scaled.

    Args:
        row: Row of its centre.
        column: Column of its centre.
        radius: Half of its side, in pixels.
        size: Height and width in pixels to scale to.
    """

    row: int = 121
    column: int = 89
    radius: int = 64
    size: int = 64

    def __call__(self, path: Path) -> np.ndarray:
        image = decode(path)
        if image.shape != (218, 178, 3):
            raise unusable(path, f"{' x '.join(map(str, image.shape))}, not 218 x 178 x 3 as CelebA's aligned images")
        top, left, side = self.row - self.radius, self.column - self.radius, 2 * self.radius
        return np.asarray(resized(Image.fromarray(image[top : top + side, left : left + side]), self.size))


def _partition(path: Path) -> list[str]:
    """Names of the images: those to train, to validate and to test."""
    names, parts = [], []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match line.split():
            case [name, ("0" | "1" | "2") as part] if Path(name).name == name:
                names.append(name)
                parts.append(int(part))
            case _:
                raise unusable(path, f"line {number} is not a file name and 0, 1 or 2; copy it anew")
    counts = np.bincount(parts, minlength=3).tolist()
    if counts != list(COUNTS.values()):
        found, expected = (" + ".join(map(str, c)) for c in (counts, COUNTS.values()))
        raise unusable(path, f"it lists {found} images, the official partition {expected}; copy it anew")
    return [names[i] for i in np.argsort(parts, kind="stable")]


def _attribute(path: Path, attribute: str, names: list[str]) -> np.ndarray:
    """0 or 1 for each image, in the order of ``names``."""
    _, header, *lines = [*path.read_text(errors="replace").splitlines(), "", ""]
    known = header.split()
    if attribute not in known:
        near = difflib.get_close_matches(attribute, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
        raise unusable(path, f"no attribute {attribute} in it; {hint}")
    column = 1 + known.index(attribute)
    values = {}
    for number, line in enumerate(filter(None, lines), 3):
        cells = line.split()
        if len(cells) != len(known) + 1 or cells[column] not in ("-1", "1"):
            raise unusable(path, f"line {number} is not a file name and {len(known)} times -1 or 1; copy it anew")
        values[cells[0]] = int(cells[column] == "1")
    lacking = [name for name in names if name not in values]
    if lacking:
        raise unusable(path, f"no attributes of {len(lacking)} images, the first is {lacking[0]}; copy it anew")
    return np.array([values[name] for name in names])


def _images(folder: Path, names: list[str]) -> list[Path]:
    there = {entry.name for entry in folder.iterdir()}
    lacking = [name for name in names if name not in there]
    if lacking:
        raise unusable(
            folder, f"{len(lacking)} of {len(names)} images are missing, the first is {lacking[0]}; unpack it anew"
        )
    return [folder / name for name in names]
