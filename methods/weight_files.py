"""Files of weights that anybody may have written: of them tensors and plain values are read, and no code runs."""

import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def read_weights(path: Path, remedy: str) -> Any:
    """Content of a file of torch or safetensors, on the CPU.

    Args:
        path: The file; one of safetensors where its name ends so.
        remedy: What to do if it cannot be used, for the message.

    Raises:
        PermissionError: If it may not be read.
        ValueError: Naming the file, if it is damaged, holds anything but tensors and plain values, or would take more
            memory than its own size or than this machine has.
    """
    try:
        why = unfit(path) or (damage(path) if _is_archive(path) else None)
        if why is None:
            safe = path.suffix == ".safetensors"
            return load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # of many kinds, as torch meets with anything in what it takes for one of its own files
        why = "cannot be read as weights alone: it is damaged or holds other objects"
    raise ValueError(f"{path} {why}; {remedy}")


def unfit(path: Path) -> str | None:
    """Why not to open a file at all: a pipe waits for ever, and a huge one ends the process; None where it is fit."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        return "is no regular file"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if about.st_size > memory:
        return f"has {about.st_size / 2**30:.3g} GiB, and this machine {memory / 2**30:.3g} GiB of memory"
    return None


def damage(path: Path) -> str | None:
    """Why not to unpack an archive of torch, which checks nothing itself; None where it is whole.

    Raises:
        Exception: Of many kinds, where it is no archive at all.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            return "is compressed, which files of weights are not"
        return None if archive.testzip() is None else "is damaged: it is not what was written"


def _is_archive(path: Path) -> bool:
    """Tell whether torch would take a file for one of its archives."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def check_plain(weights: Mapping[Any, Any]) -> None:
    """See that a state dict can be taken over: tensors by name, real or whole, finite, each number stored.

    Raises:
        ValueError: Naming the first weight that cannot.
    """
    for name, value in weights.items():
        why = _unusable(value) if isinstance(name, str) else "has no name"
        if why is not None:
            raise ValueError(f"{told(name)} {why}")


def _unusable(value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return "is no tensor"
    devices = ("cpu", torch.get_default_device().type)  # a network counted on tensors without data has such weights
    if value.dtype not in (*REAL, *WHOLE) or value.layout is not torch.strided or value.device.type not in devices:
        return f"is no plain tensor of real numbers, but of {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "has more numbers than are stored"
    return None if value.is_meta or bool(torch.isfinite(value).all()) else "is not finite"


def told(name: Any) -> str:
    """The name of a weight, for a message."""
    return name if isinstance(name, str) and name.isprintable() and len(name) <= 80 else ascii(name)[:80]
