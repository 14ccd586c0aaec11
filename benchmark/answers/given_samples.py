"""Given samples, checked against the data that they are compared with."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.answers.given_classes import Classes
from benchmark.answers.given_files import Found, found_at
from benchmark.errors import InputError, shown
from benchmark.system.arrays import save_arrays
from benchmark.system.sample_files import MOST
from datamodules.base import ImageData

LEAST = 10
MOST_BYTES = 12 * 2**30
"""Largest number of bytes of all pixels; 50,000 images of 256 x 256 pixels in colour have 9.2 GiB."""


@dataclass(frozen=True)
class Given:
    """Checked samples.

    Attributes:
        images: Grey levels ``(N, H, W, C)``.
        labels: Class of each sample, int64 ``(N,)``; all -1 if classes are not given.
        told: Description of how they were read.
    """

    images: np.ndarray
    labels: np.ndarray
    told: str


def given_samples(path: Path, data: ImageData) -> Given:
    """Read samples that ``found_at`` accepts and check that they fit the data.

    Args:
        path: An ``.npz`` file or a folder.
        data: Data that gives size, channels and range of grey levels. Three equal channels count as one if it is
            grey.

    Raises:
        InputError: If they cannot be used; names the file and what to do.
    """
    found = found_at(path)
    _check_shape(path, found, data)
    labels, told = _labels(path, found, data)
    images = found.read()
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] > data.shape[0]:
        if not (images == images[..., :1]).all():
            raise InputError(f"{path}: images are in colour, {data.name} is grey; convert them to grey")
        images, told = images[..., :1], f"{told}, three equal channels read as grey"
    elif images.shape[-1] < data.shape[0]:
        raise InputError(f"{path}: images are grey, {data.name} is in colour; give samples in colour")
    top = images.max()
    if top >= data.grey.count:
        raise InputError(f"{path}: grey level {top}, those of {data.name} are 0 to {data.grey.count - 1}; rescale them")
    return Given(images, labels, f"{len(images)} {told}, grey levels {images.min()} to {top} of {data.grey.count - 1}")


def _check_shape(path: Path, found: Found, data: ImageData) -> None:
    """Refuse samples that do not fit or are too many, before pixels are read."""
    channels, height, width = data.shape
    shape = found.shape
    if found.dtype != np.uint8 or len(shape) not in (3, 4):
        raise InputError(f"{path}: images must be uint8 (N, H, W, C), got {found.dtype} {shown(shape, 60)}")
    shape = (*shape, 1) if len(shape) == 3 else shape
    alike = {1: (1, 3), 3: (1, 3)}.get(channels, (channels,))  # grey may be saved as colours, and some data is grey
    if shape[1:3] != (height, width) or shape[3] not in alike:
        first = shape[1:] == data.shape
        raise InputError(
            f"{path}: images must have {height} x {width} pixels and {channels} channel{'s' * (channels > 1)} as "
            f"{data.name} has them, got shape {shown(found.shape, 60)}"
            + ("; channels come first, save images.transpose(0, 2, 3, 1)" if first else "")
        )
    if shape[0] < LEAST:
        raise InputError(f"{path}: {shape[0]} samples are too few to compare; give at least {LEAST}")
    if shape[0] > MOST or prod(shape) > MOST_BYTES:
        raise InputError(
            f"{path}: {shape[0]} samples of {prod(shape) / 2**30:.1f} GiB; give at most {MOST} and "
            f"{MOST_BYTES >> 30} GiB"
        )


def _labels(path: Path, found: Found, data: ImageData) -> tuple[np.ndarray, str]:
    """Class of each sample, -1 if not given, and a description of how samples were read."""
    unlabeled, told = np.full(found.shape[0], -1, np.int64), found.told
    if found.folders is not None:
        by_folder, how = classes_of(data).of_folders(path, sorted(set(found.folders)))
        labels = unlabeled if by_folder is None else np.array([by_folder[folder] for folder in found.folders], np.int64)
        return labels, f"{told}; {how}"
    if found.labels is None:
        return unlabeled, told
    labels, last = found.labels, data.classes - 1
    if labels.min() < 0 or labels.max() > last:
        outside = labels[(labels < 0) | (labels > last)][0]
        hint = "; subtract 1" if labels.min() == 1 and labels.max() == last + 1 else ""
        raise InputError(f"{path}: label {outside}, the classes of {data.name} are 0 to {last}{hint}")
    return labels.astype(np.int64), told


def classes_of(data: ImageData) -> Classes:
    """Names of a task's classes; their numbers if it has no names."""
    numbers = [str(k) for k in range(data.classes)]
    names = getattr(data, "class_names", None) or numbers
    task = data.task_classes.tolist()
    if len(names) != len(task) or (task != list(range(len(task))) and any(map(str.isdecimal, names))):
        names, task = numbers, range(data.classes)  # a number could be the data set's class or the task's
    return Classes(data.name, dict(zip(names, task, strict=True)), data.classes)


def copy_samples(path: Path, data: ImageData, folder: Path) -> dict[str, Any]:
    """Copy given samples into the cell's folder as ``samples.npz``."""
    given = given_samples(path, data)
    save_arrays(folder / "samples.npz", images=np.ascontiguousarray(given.images), labels=given.labels)
    return {
        "outputs": ["samples.npz"],
        "task_classes": data.task_classes.tolist(),
        "class_names": data.task_class_names,
        "samples": len(given.images),
    }
