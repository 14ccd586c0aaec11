"""What every training run has beside its method: weight averaging, keyed randomness, guards and checkpoints."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from torch import Tensor

from benchmark.checkpoints import FINAL, checkpoints, remove_checkpoint
from benchmark.errors import InputError, Stopped, shortened
from benchmark.files import sweep
from methods.base import keyed_seed


class _Ramp:
    """``average += (1 - decay_n) (current - average)`` with ``decay_n = min(decay, (1 + n) / (10 + n))``."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averaged, current, 1 - decay)


class EMA(WeightAveraging):
    """Exponential moving average of the parameters; validation, testing and the final weights are the average.

    Differs from the library's own callback: a whole validation run, its hooks included, sees the average; nothing is
    swapped before the first update; an exception inside validation puts the weights back; buffers are copied, not
    averaged; it pickles.

    Args:
        decay: Limit of the decay, in [0, 1]; ramps up as ``(1 + n) / (10 + n)``. 0 keeps the raw weights.
    """

    def __init__(self, decay: ClosedUnitInterval = 0.999) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=_Ramp(decay))
        self.decay = decay
        self._swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # copied before the trainer gives the weights their precision
            self._average_model = trainer.precision_plugin.convert_module(self._average_model)

    def _toggle(self, module: LightningModule) -> None:
        self._swap_models(module)
        self._swapped = not self._swapped

    @property
    def _started(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started:
            self._toggle(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._swapped:
            self._toggle(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swapped for the whole of validation instead."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swapped for the whole of validation instead."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._swapped:
            self._toggle(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started:
            super().on_train_end(trainer, pl_module)


class KeyedRandomness(Callback):
    """Seeds each shard of a step with a function of the run's seed, the step, the shard and their number.

    A run that resumes at a step draws what the unbroken run drew there, and two devices draw what one draws in two
    accumulated batches; see ``TrainingBatches``. Validation is seeded by batch and device.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        accumulated, world = trainer.accumulate_grad_batches, trainer.world_size
        shard, last = batch_idx % accumulated * world + trainer.global_rank, accumulated * world - 1
        torch.manual_seed(keyed_seed("train", self.seed, trainer.global_step, shard, last))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        torch.manual_seed(keyed_seed("evaluate", self.seed, batch_idx, trainer.global_rank))

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start


class FiniteLoss(Callback):
    """Ends a run at the first loss term, or weight, that is not finite, before it reaches a checkpoint."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        def bad(term: Tensor) -> bool:  # on any device, so that all of them end
            return trainer.strategy.reduce_boolean_decision(not bool(torch.isfinite(term)), all=False)

        if not bad(outputs["loss"]):
            return
        names = [name for name, term in outputs.items() if bad(term)]
        raise FloatingPointError(
            f"loss is not finite at step {trainer.global_step}: {', '.join(n for n in names if n != 'loss') or 'loss'}"
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, weight in pl_module.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise FloatingPointError(f"weights are not finite at step {trainer.global_step}: {name}")


class KnownMonitors(Callback):
    """Ends a run where early stopping looks at a metric that nothing logs, and says what is logged."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, epoch_ends=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, epoch_ends=True)

    def _check(self, trainer: Trainer, epoch_ends: bool) -> None:
        """Just before ``EarlyStopping`` looks, which then raises an error of many words that says nothing of it."""
        logged = trainer.callback_metrics
        for own in trainer.early_stopping_callbacks:
            looks = own.strict and own._check_on_train_epoch_end == epoch_ends and not trainer.sanity_checking
            if looks and own.monitor not in logged:
                known = ", ".join(logged) or "none"
                raise InputError(f"EarlyStopping: no metric {shortened(own.monitor)} is logged; there are {known}")


class ResumePoints(Checkpoint):
    """Full state every so many steps, the newest two kept, and the weights alone when training ends.

    Also counts the time spent, over all attempts, and stops at a step's end when any device's process is asked to. A
    resume point can be resumed on another number of devices or accumulated batches.

    Args:
        folder: Where checkpoints go; the trainer's root folder when not given.
        every_n_steps: Steps between two checkpoints.
        stop: Asked after each step whether to save and stop.

    Attributes:
        kept: Whether resume points outlive the training's end, for one who has yet to record it and then deletes them.
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
        """Seconds of processor time spent on this training; of several processes, all are taken to spend alike."""
        return self.cpu_before + self._processes * (time.process_time() - self._cpu_start)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wall_before, self.cpu_before = state_dict["seconds"], state_dict["cpu_seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if callable(self._handler) and threading.current_thread() is threading.main_thread():
            # Lightning's own handler ends a training unsaved if it comes between two steps, and on several devices it
            # meets the others inside the signal, wherever each of them is, and hangs.
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
            for old in checkpoints(self.folder):
                remove_checkpoint(old)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps == 0:  # published weights as they are: training never began, hence did not end
            self.on_train_end(trainer, pl_module)

    def path(self, step: int) -> Path:
        """File of a step's state."""
        return self.folder / f"step={step:08d}.ckpt"

    def _save(self, trainer: Trainer, step: int) -> None:
        path = self.path(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            points = checkpoints(self.folder)
            now = points.index(path)  # those behind it are of a training that was left for an earlier point
            for old in (*points[: max(0, now - 1)], *points[now + 1 :]):
                remove_checkpoint(old)
        trainer.strategy.barrier()  # no device ends, which would end the others, before the file is whole


def _respread(trainer: Trainer) -> None:
    """Count the batches of a resumed epoch as they are now, where they were accumulated otherwise before."""
    progress, now = trainer.fit_loop.epoch_loop.batch_progress, trainer.accumulate_grad_batches
    before = progress.total.ready // trainer.global_step if trainer.global_step else now
    if before == now:
        return
    for counts in (progress.total, progress.current):
        for name in ("ready", "started", "processed"):
            setattr(counts, name, getattr(counts, name) // before * now)
        counts.completed = counts.processed - 1  # resume points are written before a batch is completed


def _prepare(folder: Path) -> None:
    """See that checkpoints can be written to ``folder``, and delete what an attempt that was killed left half done.

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
    for checksum in folder.glob("*.ckpt.sha256"):
        if not checksum.with_suffix("").exists():
            checksum.unlink()
