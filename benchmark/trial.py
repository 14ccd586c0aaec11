"""A trial of some batches, ``trainer.fast_dev_run``, which leaves no file behind."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from benchmark.errors import Stopped


class StopsUnsaved(Callback):
    """Ends a trial when it is asked to; what stands in the place of ``ResumePoints``.

    Args:
        stop: Asked after each batch whether to stop.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stop(), all=False):
            raise Stopped("stopped; trainer.fast_dev_run saves nothing")
