"""Files in the idx format of MNIST: a header of big-endian sizes, then bytes."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np


def damaged(path: Path, what: str) -> ValueError:
    """The error that a published file is not as published, with what to do about it."""
    return ValueError(f"{path} is damaged: {what}; delete it and set download: true, or copy it anew")


def read_idx(path: Path, shape: tuple[int, ...], sha256: str | None = None) -> np.ndarray:
    """The bytes of an idx file, packed by gzip or not, as uint8 of the expected shape.

    No more is unpacked than the shape needs.

    Source: the format as in LeCun, Cortes and Burges, "The MNIST database": bytes 0, 0, type (8 is uint8) and number
    of dimensions, then each dimension as a big-endian uint32.

    Args:
        path: The file; gzip where it starts as one, whatever its name.
        shape: Sizes that the header must state.
        sha256: Digest of the unpacked file, where it is known.

    Raises:
        ValueError: If the file is anything else.
    """
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, f"gzip cannot unpack it ({error})") from None
    if content[:4] != header[:4]:
        raise damaged(
            path, f"it starts with {content[:4].hex() or 'nothing'}, an idx file of this kind with 0000080{len(shape)}"
        )
    if content[: len(header)] != header:
        raise damaged(path, f"its header does not state the sizes {' x '.join(map(str, shape))}")
    if len(content) != size:
        raise damaged(path, f"it has {'more' if len(content) > size else 'fewer'} than {size} bytes")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(path, "its sha256 is not the published one")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()
