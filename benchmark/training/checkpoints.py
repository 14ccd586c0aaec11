"""Checkpoints, written whole or not at all and read as plain tensors, and resume points of a training."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from benchmark.errors import InputError, Stopped, one_line, shortened, tell
from benchmark.system.files import replacing, sweep
from benchmark.training.confined import inside
from methods.base import Method
from methods.weight_files import check_plain, damage, read_weights, told, unfit

FINAL = "final.ckpt"
"""Name of a finished training's weights."""
STATE = {
    **{"epoch": int, "global_step": int, "loops": dict, "callbacks": dict},
    **{"optimizer_states": list, "lr_schedulers": list},
}
"""Contents of a resume point besides weights."""


def checkpoints(folder: Path) -> list[Path]:
    """Resume points of a training, by step, oldest first."""
    found = {path: re.fullmatch(r"step=(\d+)\.ckpt", path.name) for path in folder.glob("step=*.ckpt")}
    return sorted((path for path, name in found.items() if name), key=lambda path: int(found[path][1]))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest intact resume point; by step, not by the clock. None if there is none."""
    return next(filter(intact, reversed(checkpoints(folder))), None)


def intact(path: Path) -> bool:
    """Tell whether a checkpoint holds what was written, by the checksums inside it."""
    try:
        return unfit(path) is None and damage(path) is None
    except Exception:  # of zipfile, which meets with anything
        return False


def resume_point(folder: Path) -> Path | None:
    """Resume point to continue from, with a warning if newer ones are damaged; None if there is none at all.

    Raises:
        InputError: If all are damaged: starting over would hide the loss.
    """
    points, newest = checkpoints(folder), newest_checkpoint(folder)
    if newest is None and points:
        raise InputError(f"all resume points in {folder} are damaged; delete that folder to train from the start")
    for damaged in points[points.index(newest) + 1 :] if points else ():
        _warn(f"{damaged} is damaged; training goes on from {newest.name}")
    return newest


def final_weights(folders: Iterable[Path]) -> Path | None:
    """Weights that a training in the first of these folders that has some ended with, if any."""
    files = (folder / "checkpoints" / FINAL for folder in folders)
    return next((file for file in files if file.is_file()), None)


@rank_zero_only
def _warn(message: str) -> None:
    tell(f"warning: {message}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside the target, synced, renamed; read as plain tensors only.

    Args:
        root: Folder of all checkpoints, enforced for callbacks too; any folder if None.
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
        # Errors of Python's file object name the cause, those of torch's own writer do not.
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def remove_checkpoint(self, path: str | Path) -> None:
        self._own(path).unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no checkpoint at {path}")
        try:
            return read_weights(path, "use an earlier one or train again")
        except (ValueError, OSError) as error:
            raise InputError(one_line(error)) from None


def check_weights(path: str | Path, method: Method, whole_state: bool = False) -> dict[str, Tensor]:
    """Read the weights of a checkpoint and check that they fit a method.

    Args:
        path: The checkpoint.
        method: The method.
        whole_state: Whether the state of training is needed too.

    Raises:
        InputError: If it cannot be read, does not fit, holds weights that are not finite, or lacks the state of
            training.
    """
    found = AtomicCheckpointIO().load_checkpoint(path)
    weights = state_of_checkpoint(found, path)
    wanted = {name: _kind(value) for name, value in method.state_dict().items()}
    given = {name: _kind(value) for name, value in weights.items()}
    if given != wanted:
        differing = [name for name in {**wanted, **given} if given.get(name) != wanted.get(name)]
        raise InputError(
            f"{path} holds the weights of another method or size than {type(method).__name__}: "
            f"{len(differing)} of {len(wanted)} differ, the first is {told(differing[0])}"
        )
    check_usable(weights, path)
    if whole_state:
        _check_state(path, found)
    return weights


def state_of_checkpoint(found: Any, path: str | Path) -> dict[str, Any]:
    """State dict in the content of a checkpoint; ``path`` is for the message.

    Raises:
        InputError: If it has none.
    """
    weights = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{path} is no checkpoint of a method: it has no state_dict")
    return weights


def check_usable(weights: dict[str, Any], path: str | Path) -> None:
    """Check that weights are plain and finite; ``path`` is for the message.

    Raises:
        InputError: If one is not.
    """
    try:
        check_plain(weights)
    except ValueError as error:
        raise InputError(f"{path}: {error}; use an earlier one or train again") from None


def with_weights(method: Method, path: str | Path) -> Method:
    """Load the weights of a checkpoint into a method for evaluation.

    Raises:
        InputError: As ``check_weights`` does.
    """
    method.start = None  # its weights, not those that its training started from
    method.load_state_dict(check_weights(path, method))
    return method.eval().requires_grad_(False)


def _kind(value: Any) -> Any:
    """Properties that a weight must share with the one that it replaces."""
    return (value.shape, value.is_floating_point()) if isinstance(value, Tensor) else None


def _check_state(path: str | Path, found: dict[str, Any]) -> None:
    if "optimizer_states" not in found:
        raise InputError(f"{path} holds weights alone; training goes on from a resume point, step=*.ckpt")
    lacking = [key for key, kind in STATE.items() if not isinstance(found.get(key), kind)]
    if lacking:
        raise InputError(f"{path} is no resume point: it lacks {lacking[0]}; use an earlier one or train again")


def remove_checkpoints(folder: Path) -> None:
    for path in checkpoints(folder):
        path.unlink(missing_ok=True)


class ResumePoints(Checkpoint):
    """Saves the full state at intervals, keeps the newest two, and saves the weights alone when training ends.

    Also measures the time spent over all attempts, and stops after a step when any device's process is asked to. A
    training can be resumed on another number of devices or accumulated batches.

    Args:
        folder: Folder of checkpoints; by default in the trainer's root folder.
        every_n_steps: Steps between two checkpoints.
        stop: Returns after each step whether to save and stop.

    Attributes:
        kept: Whether resume points are kept after training, for a caller that records it first.
    """

    kept = False

    def __init__(
        self,
        folder: str | None = None,
        every_n_steps: PositiveInt = 1000,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.given, self.every_n_steps, self.stop = folder, every_n_steps, stop
        self.wall_before = self.cpu_before = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = Path(self.given or Path(trainer.default_root_dir) / "checkpoints")
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()
        self._processes = trainer.world_size
        self._handler = signal.getsignal(signal.SIGTERM)
        if stage == "fit" and trainer.is_global_zero:
            _prepare(self.folder)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent on this training."""
        return self.wall_before + time.perf_counter() - self._wall_start

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time spent on this training; several processes count as equal."""
        return self.cpu_before + self._processes * (time.process_time() - self._cpu_start)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wall_before, self.cpu_before = state_dict["seconds"], state_dict["cpu_seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if callable(self._handler) and threading.current_thread() is threading.main_thread():
            # Lightning's own handler ends a training unsaved between two steps, and on several devices it waits for
            # the others inside the signal and hangs.
            signal.signal(signal.SIGTERM, self._handler)
        _respread(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == 0 or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(self.stop(), all=False) and step != trainer.max_steps:
            self._save(trainer, step)
            raise Stopped(f"stopped at step {step}; go on with --ckpt_path={self.path(step)}")
        if step % self.every_n_steps == 0 and step != trainer.max_steps:
            self._save(trainer, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.received_sigterm:
            return
        trainer.save_checkpoint(self.folder / FINAL, weights_only=True)
        if trainer.is_global_zero and not self.kept:
            remove_checkpoints(self.folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps == 0:  # published weights: training neither began nor ended
            self.on_train_end(trainer, pl_module)

    def path(self, step: int) -> Path:
        """File of a step's state."""
        return self.folder / f"step={step:08d}.ckpt"

    def _save(self, trainer: Trainer, step: int) -> None:
        path = self.path(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            points = checkpoints(self.folder)
            now = points.index(path)  # later ones are of a training that was rewound
            for old in (*points[: max(0, now - 1)], *points[now + 1 :]):
                old.unlink(missing_ok=True)
        trainer.strategy.barrier()  # a device that ends early would end the others before the file is whole


def _respread(trainer: Trainer) -> None:
    """Convert the batch counts of a resumed epoch to another number of accumulated batches."""
    progress, now = trainer.fit_loop.epoch_loop.batch_progress, trainer.accumulate_grad_batches
    before = progress.total.ready // trainer.global_step if trainer.global_step else now
    if before == now:
        return
    for counts in (progress.total, progress.current):
        for name in ("ready", "started", "processed"):
            setattr(counts, name, getattr(counts, name) // before * now)
        counts.completed = counts.processed - 1  # resume points are written before a batch is completed


def _prepare(folder: Path) -> None:
    """Check that ``folder`` can be written, and delete temporary files of killed attempts.

    Raises:
        InputError: If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --trainer.default_root_dir"
        ) from error
    sweep(folder)
