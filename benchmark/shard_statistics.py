"""Batch norms whose running statistics do not depend on how a step is spread over devices and accumulated batches."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm


class ShardStatistics(Callback):
    """After a step, running means and variances are the mean over its shards of what each made of the step before.

    A batch norm normalises each shard by itself. Left alone, its running statistics would take in one accumulated batch
    after another, and on several devices those of the first alone. A step of one shard is not touched.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._micro = batch_idx % trainer.accumulate_grad_batches
        if self._micro == 0:
            self._before = self._sum = None
            if trainer.world_size * trainer.accumulate_grad_batches > 1:
                self._before = [buffer.clone() for norm in _norms(pl_module) for buffer in norm.buffers(recurse=False)]

    @torch.no_grad()
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._before:
            return
        buffers = [buffer for norm in _norms(pl_module) for buffer in norm.buffers(recurse=False)]
        statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in statistics])
        self._sum = flat if self._sum is None else self._sum + flat
        if self._micro + 1 < trainer.accumulate_grad_batches:
            torch._foreach_copy_(buffers, self._before)
            return
        mean = trainer.strategy.reduce(self._sum / trainer.accumulate_grad_batches, reduce_op="mean")
        parts = mean.split([buffer.numel() for buffer in statistics])
        torch._foreach_copy_(statistics, [part.view_as(to) for part, to in zip(parts, statistics, strict=True)])


def _norms(module: LightningModule) -> list[_BatchNorm]:
    """Batch norms that are taking in what they see."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
