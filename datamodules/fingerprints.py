"""Hashes of what data sets hold: equal wherever the images lie and whenever they were written there."""

import hashlib
import os
from collections.abc import Iterable

import numpy as np

from datamodules.streamed import Files

READ = 2000
"""Files of a part that are read; of the others the size counts."""


def of_arrays(*arrays: np.ndarray) -> str:
    """sha256 of types, shapes and values."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return state.hexdigest()


def of_files(files: Files) -> str:
    """sha256 of the names and sizes of files, in their order, and of what 2,000 of them hold, evenly spread."""
    state = hashlib.sha256(files.names.tobytes())
    read = set(np.linspace(0, len(files) - 1, min(READ, len(files)), dtype=int).tolist())
    folder = os.fsencode(files.below)
    for row, name in enumerate(files.names.tolist()):
        path = os.path.join(folder, name)
        state.update(b"%d\0" % os.stat(path).st_size)
        if row in read:
            with open(path, "rb") as file:
                state.update(file.read())
    return state.hexdigest()


def of_several(fingerprints: Iterable[str | None]) -> str | None:
    """sha256 of fingerprints; None if one of them is None."""
    found = list(fingerprints)
    return None if None in found else hashlib.sha256("\n".join(found).encode()).hexdigest()
