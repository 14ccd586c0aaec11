"""Samples that somebody else made, checked against the data that they are compared with."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.array_files import save_arrays
from benchmark.errors import InputError
from benchmark.given_files import read_samples
from datamodules.base import ImageData


def given_samples(path: Path, data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels ``(N, H, W, C)`` and the class that each was asked for, int64 ``(N,)``, -1 throughout if none was.

    Args:
        path: See ``read_samples``.
        data: What they are compared with; they must have its size, channels and range of grey levels.

    Raises:
        InputError: If they cannot be used, naming the file and what to do.
    """
    images, labels = read_samples(path)
    channels, height, width = data.shape
    if images.shape[1:] != (height, width, channels):
        raise InputError(
            f"{path}: images must have {height} x {width} pixels and {channels} channels as {data.name} has them, got "
            f"shape {images.shape}"
        )
    if images.max() >= data.grey.count:
        raise InputError(
            f"{path}: grey level {images.max()}, those of {data.name} are 0 to {data.grey.count - 1}; rescale them"
        )
    if labels is None:
        return images, np.full(len(images), -1, np.int64)
    if labels.min() < 0 or labels.max() >= data.classes:
        outside = labels[(labels < 0) | (labels >= data.classes)][0]
        raise InputError(f"{path}: label {outside}, the classes of {data.name} are 0 to {data.classes - 1}")
    return images, labels.astype(np.int64)


def take(path: Path, data: ImageData, folder: Path) -> dict[str, Any]:
    """Keep the samples as the cell's own, ``samples.npz``."""
    images, labels = given_samples(path, data)
    save_arrays(folder / "samples.npz", images=images, labels=labels)
    return {"outputs": ["samples.npz"], "task_classes": data.task_classes.tolist(), "samples": len(images)}
