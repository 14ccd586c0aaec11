"""Progress of a training: reported to the process that waits for it, and shown as a bar."""

import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar

from benchmark.system.report import Report

EVERY = 25
"""Steps between two reports."""


class StepReports(Callback):
    """Reports every 25th step of a training with its loss.

    Args:
        report: Called by the first of several processes with the stage ``train``.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and trainer.global_step % EVERY == 0:
            loss = float(outputs["loss"]) if outputs else None
            self.report("train", trainer.global_step, trainer.max_steps, loss)


class StepBar(RichProgressBar):
    """The library's bar, counting steps of the training instead of batches of an epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.is_enabled:
            self.train_progress_bar_id = self._add_task(_steps(trainer), "Step")
            self._update(self.train_progress_bar_id, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the bar."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done = (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
        self._update(self.train_progress_bar_id, done)
        self._update_metrics(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the end of the name of the logger's folder
        return shown


def _steps(trainer: Trainer) -> float:
    """Steps of a training, infinite if nothing limits them: the trainer's -1 would be shown as a number."""
    steps = trainer.estimated_stepping_batches
    return steps if steps >= 0 else math.inf
