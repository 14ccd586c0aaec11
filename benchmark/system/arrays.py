"""Arrays on disk and in batches."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from benchmark.system.files import replacing

READ = 2**18
"""Bytes that are read of an archive at once; more are slower, since what is read so far is copied with each piece."""


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to an ``.npz`` that is whole or absent."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def save_rows(path: Path, name: str, length: int, blocks: Iterable[np.ndarray], **arrays: np.ndarray) -> None:
    """Write an array of ``length`` rows from consecutive blocks of them, and others, as ``save_arrays`` does."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open(f"{name}.npy", "w", force_zip64=True) as member:
            for number, block in enumerate(blocks):
                if number == 0:
                    shape, kind = (length, *block.shape[1:]), npy.dtype_to_descr(block.dtype)
                    npy.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})
                member.write(np.ascontiguousarray(block).data)
        for other, array in arrays.items():
            with file.open(f"{other}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def load_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``, all if none is named; nothing pickled is read."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names or file.files}


class StoredRows:
    """An array of an ``.npz`` that is read some rows at a time, in their order.

    Args:
        path: The file.
        name: Name of the array.

    Raises:
        ValueError: If its rows do not lie one after the other.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with np.load(path, allow_pickle=False) as file, file.zip.open(f"{name}.npy") as member:
            self.shape, self.dtype = _header(member, path)

    def __len__(self) -> int:
        return self.shape[0]

    def split(self, size: int) -> Iterator[np.ndarray]:
        """The rows, ``size`` at a time."""
        with zipfile.ZipFile(self.path) as file, file.open(f"{self.name}.npy") as member:
            _header(member, self.path)
            for rows in batches(len(self), size):
                block = np.empty((len(rows), *self.shape[1:]), self.dtype)
                content = memoryview(block).cast("B")
                for start in range(0, len(content), READ):
                    part = content[start : start + READ]
                    part[:] = member.read(len(part))
                yield block


def _header(member: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array whose file begins here."""
    npy.read_magic(member)
    shape, columns_first, dtype = npy.read_array_header_1_0(member)
    if columns_first or dtype.hasobject:
        raise ValueError(f"{path}: rows cannot be read one after the other")
    return shape, dtype


def batches(count: int, size: int) -> Iterator[range]:
    """Consecutive index ranges that cover ``0 .. count - 1``."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
