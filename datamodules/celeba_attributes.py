"""CelebA with all its attributes at once, for methods that tell them apart together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.base import Part
from datamodules.batches import EvaluationBatches, TrainingBatches
from datamodules.celeba import ATTRIBUTES, PARTITION, CelebA, _partition
from datamodules.image_files import unusable

_NAMES = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair
    Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
    Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
    Wearing_Necktie Young
"""
OFFICIAL = tuple(_NAMES.split())
"""The 40 attributes in the order of ``list_attr_celeba.txt``."""


class CelebAAttributes(CelebA):
    """``CelebA`` whose batches have every attribute of an image as the bits of its label: bit ``k`` is attribute ``k``.

    ``images``, and with it the questions of an evaluation, has the named attribute as the class.

    Args:
        root: See ``CelebA``.
        attribute: The named attribute.
        kwargs: Arguments of stored images and of every data set.
    """

    attribute_names: Sequence[str] = OFFICIAL
    sizes: ClassVar[dict[str, int]] = CelebA.sizes

    def __init__(self, root: str | None = None, attribute: str = "Smiling", **kwargs: Any) -> None:
        super().__init__(root=root, attribute=attribute, **kwargs)
        if self.task_classes.tolist() != [0, 1]:
            raise ValueError("labels: a task of its own has no place beside all attributes")
        if self.stands_in:  # every attribute like the named one
            every = 2 ** len(self.attribute_names) - 1
            self._codes = {part: every * self.images(part)[1] for part in ("train", "validation", "test")}
        else:
            train, test = (self._bits[self._rows[part]] for part in ("train", "test"))
            codes = {part: train[self.splits[part]] for part in ("train", "validation")} | {"test": test}
            self._codes = {part: torch.from_numpy(code) for part, code in codes.items()}

    def _find(self, root: Path, attribute: str) -> None:
        super()._find(root, attribute)
        folder = root / self.name
        self.attribute_names, self._bits = _all_attributes(folder / ATTRIBUTES, _partition(folder / PARTITION))

    def attributes(self, part: Part) -> Tensor:
        """Every attribute of the images of a part, 0 or 1, int64 ``(N, attributes)``."""
        return self._codes[part][:, None] >> torch.arange(len(self.attribute_names)) & 1

    def train_dataloader(self) -> TrainingBatches:
        return TrainingBatches(self, self.images("train")[0], self._codes["train"], self.pools())

    def val_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(_Coded(self), "validation")

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(_Coded(self), "test")

    def predict_dataloader(self) -> EvaluationBatches:
        """The whole test part with the named attribute alone."""
        return EvaluationBatches(self, "test")


class _Coded:
    """Takes the place of the data set in batches of evaluation: labels are codes there."""

    def __init__(self, data: CelebAAttributes) -> None:
        self.data, self.trainer, self.device, self.dequantised = data, data.trainer, data.device, data.dequantised

    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        return self.data.images(part)[0], self.data._codes[part]


def _all_attributes(path: Path, names: list[str]) -> tuple[list[str], np.ndarray]:
    """Names of the attributes, and those of each image as bits, int64, in the order of ``names``."""
    _, header, *lines = path.read_text(errors="replace").splitlines()
    known, found = header.split(), {}
    if len(known) > 62:
        raise unusable(path, f"{len(known)} attributes, more than a label has bits")
    for number, line in enumerate(filter(None, lines), 3):
        name, *cells = line.split()
        if not set(cells) <= {"-1", "1"}:
            raise unusable(path, f"line {number} is not a file name and {len(known)} times -1 or 1; copy it anew")
        found[name] = sum(1 << k for k, cell in enumerate(cells) if cell == "1")
    return known, np.array([found[name] for name in names], dtype=np.int64)
