"""Class probabilities of the test part, in a file."""

from pathlib import Path

import torch
from lightning import Trainer

from benchmark.array_files import save_arrays
from benchmark.errors import InputError
from datamodules.base import ImageData
from methods.base import Method

FILE = "predictions.npz"


def predict(trainer: Trainer, method: Method, data: ImageData, checkpoint: str | None) -> Path:
    """Write ``probabilities (N, K)`` and ``labels (N,)`` of the test part to the trainer's folder; the file's path.

    Raises:
        InputError: If the method has no classifier or no weights, there is nothing to predict, or there are several
            devices, which would each hold a part.
    """
    if "classify" in method.unsupported:
        raise InputError(f"{type(method).__name__} predicts no classes: {method.unsupported['classify']}")
    if checkpoint is None and method.start is None:
        raise InputError("predict needs trained weights; give --ckpt_path=FILE")
    if trainer.world_size > 1:
        raise InputError(f"predict runs on one device, got {trainer.world_size}; give --trainer.devices=1")
    found = trainer.predict(method, datamodule=data, ckpt_path=checkpoint)
    if not found:
        raise InputError("there are no batches to predict; leave trainer.limit_predict_batches out")
    probabilities, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    path = Path(trainer.default_root_dir) / FILE
    save_arrays(path, probabilities=probabilities, labels=labels)
    return path
