"""Arrays in an untrusted ``.npz`` file, checked by their headers before they are unpacked."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from benchmark.errors import InputError, one_line, shown
from benchmark.system.files import opened

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
SUFFIX = ".npy"


@dataclass(frozen=True)
class Declared:
    """Shape and type in the header of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An ``.npz`` file.

    Attributes:
        names: Names of its arrays.
        others: Names of its other files.

    Raises:
        InputError: If the file is no ``.npz`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        start = b""
        try:
            with opened(path) as file:
                start = file.read(24)
                if start.startswith(np.lib.format.MAGIC_PREFIX):
                    raise InputError(f"{path} is a single array; save it with numpy.savez(path, images=array)")
                with zipfile.ZipFile(file) as archive:
                    self._members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InputError(
                f"{path} is no whole .npz file; it starts with {shown(repr(start)[1:], 60)}; save it anew"
            ) from None
        self.names = [name.removesuffix(SUFFIX) for name in self._members if name.endswith(SUFFIX)]
        self.others = [name for name in self._members if not name.endswith(SUFFIX)]

    def declared(self, name: str) -> Declared:
        """The shape and type of an array, from its header.

        Raises:
            InputError: If it is no array of numbers, or its size differs from its header.
        """
        with self._opened(name) as file:
            try:
                shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
            except (ValueError, KeyError):
                raise InputError(f"{self.path}: {name} is no array, or one of objects; save it anew") from None
            if dtype.hasobject:
                raise InputError(f"{self.path}: {name} is an array of objects; save it as one of numbers")
            expected, size = file.tell() + prod(shape) * dtype.itemsize, self._members[name + SUFFIX].file_size
            if expected != size:
                raise InputError(
                    f"{self.path}: array {name} has {size} bytes, one of shape {shown(shape, 60)} has {expected}; "
                    "save it anew"
                )
            return Declared(shape, dtype)

    def read(self, name: str) -> np.ndarray:
        """Unpack an array into memory of the size in its header; check ``declared`` first.

        Raises:
            InputError: If it is damaged.
        """
        with self._opened(name) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # at the end the checksum is compared
            return array

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name + SUFFIX]) as file:
                yield file
        except (InputError, MemoryError):
            raise
        except Exception as error:  # of zipfile, its decompressors and NumPy, which have no common base
            why = shown(one_line(error), 100)
            raise InputError(f"{self.path}: array {name} cannot be read: {why}; save it anew") from None
