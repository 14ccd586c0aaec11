"""What answers have in common: arrays in files, batches, and the test images that are asked about."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmark.files import replacing
from benchmark.protocol import Protocol
from datamodules.base import ImageData

Report = Callable[[str, int, int], None]
"""Called with the stage, what is done of it, and what there is to do."""


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to an ``.npz`` that is whole or absent."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``; nothing pickled is read."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def batches(count: int, size: int) -> Iterator[range]:
    """Consecutive index ranges that cover ``0 .. count - 1``."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def some_test_images(data: ImageData, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Grey levels and labels of the test images that the protocol asks about."""
    return data.some_images("test", protocol.test_images, [protocol.seed, 4])
