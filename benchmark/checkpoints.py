"""Files of a training's state: whole or absent when written, and read with care, for anybody may have written them."""

import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from benchmark.confined import inside
from benchmark.errors import InputError, one_line, shortened, tell
from benchmark.files import digest_file, replacing, write_text
from methods.base import Method
from methods.weight_files import check_plain, read_weights, told, unfit

FINAL = "final.ckpt"
"""Name of a finished training's weights."""
STATE = {
    **{"epoch": int, "global_step": int, "loops": dict, "callbacks": dict},
    **{"optimizer_states": list, "lr_schedulers": list},
}
"""What a resume point holds beside weights."""
LONGEST_CHECKSUM = 1000
"""Bytes that are read of a file of checksums; ours have two of them at most."""


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
    if not path.is_file() or not checksum.is_file() or unfit(path) is not None:
        return False
    with open(checksum, "rb") as file:
        return digest_file(path).encode() in file.read(LONGEST_CHECKSUM).split()


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
    tell(f"warning: {message}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside the target, synced, renamed; read as plain tensors only.

    A checksum beside each tells a damaged one; it is there first, so that no kill leaves a checkpoint without one.

    Args:
        root: Folder that all checkpoints lie in, whatever a callback's settings say; any when not given.
    """

    def __init__(self, root: Path | None = None) -> None:
        super().__init__()
        self.root = root

    def _own(self, path: str | Path) -> Path:
        path = Path(path)
        if self.root is not None and not inside(path, self.root):
            raise InputError(f"checkpoints go to {self.root} and below, not to {shortened(str(path))}")
        return path

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = self._own(path)
        with replacing(path) as temporary:
            # Through Python's file object, whose errors name the cause where torch's own writer does not.
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
            checksum = _checksum(path)
            # Until the new file is in its place, what it replaces counts as well.
            replaced = checksum.read_text().split()[-1:] if path.is_file() and checksum.is_file() else []
            write_text(checksum, "\n".join([*replaced, digest_file(temporary)]) + "\n")

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(self._own(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no checkpoint at {path}")
        if _checksum(path).is_file() and not intact(path):
            raise InputError(f"{path} is damaged: it is not what was written; use an earlier one or train again")
        try:
            return read_weights(path, "use an earlier one or train again")
        except (ValueError, OSError) as error:
            raise InputError(one_line(error)) from None


def check_weights(path: str | Path, method: Method, whole_state: bool = False) -> dict[str, Tensor]:
    """The weights of a checkpoint, if they are of this method.

    Args:
        path: The checkpoint.
        method: What is to take its weights.
        whole_state: Whether the state of training is needed as well.

    Raises:
        InputError: If it cannot be read, is of another method, holds weights that are not finite, or lacks the state of
            training.
    """
    found = AtomicCheckpointIO().load_checkpoint(path)
    weights = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{path} is no checkpoint of a method: it has no state_dict")
    wanted = {name: _kind(value) for name, value in method.state_dict().items()}
    given = {name: _kind(value) for name, value in weights.items()}
    if given != wanted:
        differing = [name for name in {**wanted, **given} if given.get(name) != wanted.get(name)]
        raise InputError(
            f"{path} holds the weights of another method or size than {type(method).__name__}: "
            f"{len(differing)} of {len(wanted)} differ, the first is {told(differing[0])}"
        )
    try:
        check_plain(weights)
    except ValueError as error:
        raise InputError(f"{path}: {error}; use an earlier one or train again") from None
    if whole_state:
        _check_state(path, found)
    return weights


def with_weights(method: Method, path: str | Path) -> Method:
    """The method with the weights of a checkpoint, for evaluation.

    Raises:
        InputError: As ``check_weights`` does.
    """
    method.start = None  # its weights, not those that its training started from
    method.load_state_dict(check_weights(path, method))
    return method.eval().requires_grad_(False)


def _kind(value: Any) -> Any:
    """What a weight must have in common with the one whose place it takes."""
    return (value.shape, value.is_floating_point()) if isinstance(value, Tensor) else None


def _check_state(path: str | Path, found: dict[str, Any]) -> None:
    if "optimizer_states" not in found:
        raise InputError(f"{path} holds weights alone; training goes on from a resume point, step=*.ckpt")
    lacking = [key for key, kind in STATE.items() if not isinstance(found.get(key), kind)]
    if lacking:
        raise InputError(f"{path} is no resume point: it lacks {lacking[0]}; use an earlier one or train again")
