"""The bar that a training shows."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class StepBar(RichProgressBar):
    """The library's bar, except that it counts the steps of a whole training instead of the batches of an epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.is_enabled:
            self.train_progress_bar_id = self._add_task(trainer.estimated_stepping_batches, "Step")
            self._update(self.train_progress_bar_id, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The bar goes on."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done = (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
        self._update(self.train_progress_bar_id, done)
        self._update_metrics(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the end of the name of the logger's folder
        return shown
