"""Arrays on disk and in batches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmark.system.files import replacing


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
