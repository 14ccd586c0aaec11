"""Files of a training's state: whole or absent when written, and read with care, for anybody may have written them."""

import re
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from benchmark.errors import InputError
from benchmark.files import digest_file, replacing, write_text

FINAL = "final.ckpt"
"""Name of a finished training's weights."""


def _checksum(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def remove_checkpoint(path: Path) -> None:
    """Delete a resume point and its checksum."""
    path.unlink(missing_ok=True)
    _checksum(path).unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Resume points of a training, by step, oldest first."""
    found = {path: re.fullmatch(r"step=(\d+)\.ckpt", path.name) for path in folder.glob("step=*.ckpt")}
    return sorted((path for path, name in found.items() if name), key=lambda path: int(found[path][1]))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest resume point whose bytes are what was written; by step, not by the clock. None if there is none."""
    return next(filter(intact, reversed(checkpoints(folder))), None)


def intact(path: Path) -> bool:
    """Whether a checkpoint's bytes are those that were written, by the checksum beside it."""
    checksum = _checksum(path)
    return path.is_file() and checksum.is_file() and digest_file(path).encode() in checksum.read_bytes().split()


def resume_point(folder: Path) -> Path | None:
    """The resume point to go on from, with a warning where newer ones are damaged; None if there is none at all.

    Raises:
        InputError: If there are some and all are damaged: starting over would hide what was lost.
    """
    points, newest = checkpoints(folder), newest_checkpoint(folder)
    if newest is None and points:
        raise InputError(f"all resume points in {folder} are damaged; delete that folder to train from the start")
    for damaged in points[points.index(newest) + 1 :] if points else ():
        _warn(f"{damaged} is damaged; training goes on from {newest.name}")
    return newest


@rank_zero_only
def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside the target, synced, renamed; read as plain tensors only.

    A checksum beside each tells a damaged one; it is there first, so that no kill leaves a checkpoint without one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with replacing(path) as temporary:
            # Through Python's file object, whose errors name the cause where torch's own writer does not.
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
            checksum = _checksum(path)
            # Until the new file is in its place, what it replaces counts as well.
            replaced = checksum.read_text().split()[-1:] if path.is_file() and checksum.is_file() else []
            write_text(checksum, "\n".join([*replaced, digest_file(temporary)]) + "\n")

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no checkpoint at {path}")
        if _checksum(path).is_file() and not intact(path):
            raise InputError(f"{path} is damaged: it is not what was written; use an earlier one or train again")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(f"{path} is not a readable checkpoint; use an earlier one or train again") from error
