"""Callbacks of every training: weight averaging, keyed randomness, guards and logging."""

from collections.abc import Callable
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from benchmark.errors import InputError, Stopped, one_line, shortened, tell
from methods.base import Method, keyed_seed, networks_of


class _Ramp:
    """``average += (1 - decay_n) (current - average)`` with ``decay_n = min(decay, (1 + n) / (10 + n))``.

    Whole numbers are copied.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
        decay = min(self.decay, (1 + int(n)) / (10 + int(n)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            torch._foreach_copy_(averaged, current)


class EMA(WeightAveraging):
    """Exponential moving average of the weights; validation, testing and the final weights are the average.

    Buffers are averaged too: the statistics of a batch norm then belong to the averaged layers before it. Differs from
    the library's own callback: a whole validation run, its hooks included, sees the average; nothing is swapped before
    the first update; an exception inside validation puts the weights back; it pickles.

    Args:
        decay: Limit of the decay, in [0, 1]; ramps up as ``(1 + n) / (10 + n)``. 0 keeps the raw weights.
    """

    def __init__(self, decay: ClosedUnitInterval = 0.999) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=_Ramp(decay))
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
    """Seeds each shard of a step by the run's seed, the step, the shard and the number of shards.

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
    """Ends a run at the first loss term or weight that is not finite, before it is saved."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        def bad(term: Tensor) -> bool:  # on any device, so that all end
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


class Logs(Callback):
    """Logs what a method's steps return.

    ``train/...`` are the learning rate, the norm of the gradient, each loss term and their sum, at the optimiser steps
    at which the trainer's loggers write: means over the step's accumulated batches and over the devices. ``val/...``
    and ``test/...`` are means over all images.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._due = (trainer.global_step + 1) % trainer.log_every_n_steps == 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._due:
            pl_module.log("train/lr", optimizer.param_groups[0]["lr"])
            gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        terms = {name: term for name, term in outputs.items() if name != "loss"}
        if not self._due or not terms:
            return
        terms["loss"] = torch.stack(list(terms.values())).sum()  # the trainer's own is divided by the number of batches
        accumulated = trainer.accumulate_grad_batches
        micro = batch_idx % accumulated
        self._sums = {name: term + (self._sums[name] if micro else 0) for name, term in terms.items()}
        if micro + 1 == accumulated:
            means = {f"train/{name}": total / accumulated for name, total in self._sums.items()}
            pl_module.log_dict(means, sync_dist=True)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Tensor], batch: Any, *_: Any
    ) -> None:
        part = "test" if trainer.testing else "val"
        for name, value in outputs.items():
            shown = name in ("loss", "accuracy")
            size = len(batch["labeled"][1])
            pl_module.log(f"{part}/{name}", value, prog_bar=shown, batch_size=size, sync_dist=True)

    on_test_batch_end = on_validation_batch_end


class KnownMonitors(Callback):
    """Ends a run whose early stopping monitors a metric that is not logged, and names the logged ones."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, epoch_ends=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, epoch_ends=True)

    def _check(self, trainer: Trainer, epoch_ends: bool) -> None:
        """Check just before ``EarlyStopping``, whose own error is long and does not name the logged metrics."""
        logged = trainer.callback_metrics
        for own in trainer.early_stopping_callbacks:
            looks = own.strict and own._check_on_train_epoch_end == epoch_ends and not trainer.sanity_checking
            if looks and own.monitor not in logged:
                known = ", ".join(logged) or "none"
                raise InputError(f"EarlyStopping: no metric {shortened(own.monitor)} is logged; there are {known}")


def check_precision(trainer: Trainer) -> None:
    """Check that weights are kept in single or double precision.

    Raises:
        InputError: If they are kept in half precision, in which averages over steps stop changing.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, HalfPrecision):
        raise InputError(
            f"trainer.precision {plugin.precision} keeps the weights themselves in half precision, in which their "
            "averages stand still; there are 32-true, bf16-mixed, 16-mixed and 64-true"
        )


class UnscaledMixedPrecision(MixedPrecision):
    """bfloat16 autocast, whose gradients are not scaled.

    The library refuses to clip gradients for a fused optimiser, which would undo their scaling itself, after the
    clipping. Where nothing is scaled there is nothing to undo.
    """

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        Precision.clip_gradients(self, optimizer, clip_val, gradient_clip_algorithm)


ENTRIES = ("forward", "encode", "decode", "features")
"""Methods of networks that losses call."""


class CompiledNetworks(Callback):
    """Compiles the networks of a method's loss when training begins.

    Losses, samplers, classifiers and denoisers around the networks are not compiled, and random draws do not change. If
    nothing can be compiled, networks run uncompiled after a warning. Evaluation after training does not compile.

    Args:
        method: The method to train.

    Raises:
        InputError: If the method's loss needs second derivatives, which compiled networks do not have.
    """

    def __init__(self, method: Method) -> None:
        if method.second_order:
            name = type(method).__name__
            raise InputError(f"compile must be false for {name}: its loss needs second derivatives of the network")

    def setup(self, trainer: Trainer, pl_module: Method, stage: str) -> None:
        if stage != "fit":
            return
        try:
            torch.compile(torch.sin)(torch.zeros(8, device=trainer.strategy.root_device))
        except Exception as error:
            if trainer.is_global_zero:
                tell(f"warning: compile is on, but nothing can be compiled here: {one_line(error)}")
            return
        for network in networks_of(pl_module):
            found = [name for name in ENTRIES if hasattr(network, name)]
            network.__dict__.update({name: torch.compile(getattr(network, name)) for name in found})

    def teardown(self, trainer: Trainer, pl_module: Method, stage: str) -> None:
        for network in networks_of(pl_module):
            for name in ENTRIES:
                network.__dict__.pop(name, None)


class StopsUnsaved(Callback):
    """Ends a trial run on request, in place of ``ResumePoints``.

    Args:
        stop: Returns after each batch whether to stop.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stop(), all=False):
            raise Stopped("stopped; trainer.fast_dev_run saves nothing")


class ShardStatistics(Callback):
    """Averages running means and variances over the shards of a step.

    A batch norm normalises each shard by itself. Without this callback its running statistics would be updated by one
    accumulated batch after another, and on several devices by those of the first alone. Steps of one shard do not
    change.
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
    """Batch norms that update running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
