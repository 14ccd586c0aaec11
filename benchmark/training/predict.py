"""Class probabilities of the test part, in a file."""

from pathlib import Path

import torch
from lightning import Trainer

from benchmark.errors import InputError
from benchmark.system.arrays import save_arrays
from datamodules.base import ImageData
from methods.base import Method

FILE = "predictions.npz"


def predict(trainer: Trainer, method: Method, data: ImageData, checkpoint: str | None) -> Path | None:
    """Write ``probabilities (N, K)`` and ``labels (N,)`` of the test part to the trainer's folder; the file's path.

    Returns None under ``trainer.fast_dev_run``, which leaves no files.

    Raises:
        InputError: If there is nothing to predict, or there are several devices, each with a part.
    """
    if trainer.world_size > 1:
        raise InputError(f"predict runs on one device, got {trainer.world_size}; give --trainer.devices=1")
    found = trainer.predict(method, datamodule=data, ckpt_path=checkpoint)
    if not found:
        raise InputError("there are no batches to predict; leave trainer.limit_predict_batches out")
    if trainer.fast_dev_run:
        return None
    probabilities, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    path = Path(trainer.default_root_dir) / FILE
    save_arrays(path, probabilities=probabilities, labels=labels)
    return path
