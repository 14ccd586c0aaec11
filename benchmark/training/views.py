"""Views of a training for TensorBoard: accuracy over noise, samples of averaged weights; and how often it validates."""

import math
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from benchmark.system.images import draw_images
from benchmark.training.sample import picture
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method, Unsupported

LEVELS = 5
"""Noise levels of the accuracy."""
IMAGES = 50
"""Samples of a picture."""
JUDGED = 500
"""Most validation images whose noisy copies are classified."""
MOST = 20
"""Most views of a training: by a sampler of 2,000 evaluations each costs as much as hundreds of steps."""


VALIDATIONS = 50
"""Most validations of a training whose settings leave them to each epoch."""


class SomeValidations(Callback):
    """Validates every few epochs, where an epoch is so short that there would be over ``VALIDATIONS``.

    An epoch of few labels is one step; validation after each took longer than training. Settings of the trainer, and
    callbacks or schedules that monitor a validation, are left as they are.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Method) -> None:
        steps = getattr(trainer.train_dataloader, "epoch_steps", None)
        monitored = any(getattr(callback, "monitor", None) for callback in trainer.callbacks)
        monitored = monitored or any(schedule.reduce_on_plateau for schedule in trainer.lr_scheduler_configs)
        own = trainer.check_val_every_n_epoch != 1 or trainer.val_check_interval != 1.0
        if steps and trainer.max_steps > 0 and not own and not monitored:
            trainer.check_val_every_n_epoch = max(1, math.ceil(trainer.max_steps / steps / VALIDATIONS))


class Views(Callback):
    """Writes accuracy over noise and a grid of samples to TensorBoard, after validations.

    ``val/accuracy/sigma=...`` is the accuracy on noisy validation images, at levels even in the quantiles of the
    process; ``samples`` are images of each class in turn, or without a class. Noise is keyed: pictures of different
    steps start from the same, and the training's own draws do not change.

    Args:
        every: Least number of optimiser steps between two; more where a training would have over ``MOST``.
    """

    def __init__(self, every: int) -> None:
        self.every, self._last = every, 0

    def on_fit_start(self, trainer: Trainer, pl_module: Method) -> None:
        self.every = max(self.every, trainer.max_steps // MOST)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Method) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.fast_dev_run or not boards or trainer.global_step < self._last + self.every:
            return
        self._last = trainer.global_step
        method, data = pl_module, trainer.datamodule
        scalars = accuracy_over_noise(method, data) if method.noisy_process is not None else {}
        grid = None if "sample" in method.unsupported or data.shape[0] not in (1, 3) else sample_grid(method, data)
        step = trainer.global_step - 1  # Lightning counts the steps of its own logs from 0
        for board in boards if trainer.is_global_zero else ():
            board.log_metrics(scalars, step)
            if grid is not None:
                board.experiment.add_image("samples", grid, step, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]


def accuracy_over_noise(method: Method, data: ImageData) -> dict[str, float]:
    """Accuracy on some validation images at ``LEVELS`` noise levels, by name.

    Args:
        method: Method with a classifier of noisy images.
        data: Its data.
    """
    u, y = data.some_images("validation", JUDGED, [0])
    x, y = data.grey.centre(u).to(method.device), y.to(method.device)
    noise = KeyedNoise(0, "views", range(len(x)), data.shape, method.device)()
    process = method.noisy_process
    found = {}
    for t in process.times_at((torch.arange(LEVELS, device=x.device) + 0.5) / LEVELS):
        x_t, _ = process.perturb(x, t.expand(len(x)), noise)
        right = method.classify(x_t, t.expand(len(x))).argmax(1) == y
        found[f"val/accuracy/sigma={float(process.log_sigma(t).exp()):.3g}"] = float(right.float().mean())
    return found


def sample_grid(method: Method, data: ImageData) -> np.ndarray | None:
    """Samples side by side, uint8 ``(H, W, 3)``.

    None if one is not finite, as may be early in a training, or if weights that are needed for sampling alone are still
    being trained.
    """
    labels = torch.arange(IMAGES) % data.classes if _is_guided(method) else None
    try:
        images = draw_images(method, data, range(IMAGES), labels, 0, IMAGES, lambda drawn: None)
    except (FloatingPointError, FileNotFoundError):
        return None
    return np.array(picture(images, data.grey.count).convert("RGB"))


def _is_guided(method: Method) -> bool:
    """Tell whether a method can sample by class at its guidance scale."""
    try:
        return method.conditional and method.guidance_scale > 0 and method.guidance() is not None
    except Unsupported:
        return False
