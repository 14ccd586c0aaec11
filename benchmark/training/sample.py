"""`lightning sample`: images of a trained method, as a file of arrays and as a picture."""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning import Trainer
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from benchmark.errors import InputError, escaped
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.files import replacing
from benchmark.system.images import SHARD, draw_images
from benchmark.system.memory import physical_memory
from benchmark.system.surroundings import absolute
from benchmark.training.checkpoints import with_weights
from datamodules.base import ImageData
from methods.base import Method

FILE = "sampled.npz"
SHOWN, COLUMNS = 100, 10
"""Images of the picture, and of one of its rows."""
LEAST_PIXELS = 32
"""Least height of an image in the picture; smaller ones are enlarged."""


class SamplingTrainer(Trainer):
    """Lightning's trainer with a command that draws samples."""

    def sample(
        self,
        model: Method,
        datamodule: ImageData,
        ckpt_path: str | None = None,
        label: NonNegativeInt | None = None,
        count: PositiveInt = 100,
        guidance_scale: NonNegativeFloat | None = None,
        seed: NonNegativeInt = 0,
        batch: PositiveInt = 100,
        out: str | None = None,
    ) -> None:
        """Draw images from a trained method, to an .npz file and a picture of the first hundred.

        The file holds ``images (N, H, W, C)``, grey levels, and ``labels (N,)``, the classes asked for, -1 where none
        was. Image ``i`` depends on ``seed`` and ``i`` alone.

        Args:
            model: The method.
            datamodule: Its data.
            ckpt_path: Its weights; those of the folder when not given.
            label: Class to ask for; every class in turn when not given.
            count: Number of images.
            guidance_scale: Weight of the class in sampling, 1 is Bayes and 0 asks for no class; the method's own
                when not given.
            seed: Seed of the noise.
            batch: Images drawn at once.
            out: File to write, which ends in .npz; sampled.npz in the trainer's folder when not given.

        Raises:
            InputError: If there is no such class, no class can be asked for, or the file cannot be written.
        """
        if self.world_size > 1:
            raise InputError(f"sample runs on one device, got {self.world_size}; give --trainer.devices=1")
        path = Path(self.default_root_dir) / FILE if out is None else absolute(out)
        if path.suffix != ".npz" or not (out is None or path.parent.is_dir()):
            raise InputError(f"--out must be a file that ends in .npz, in a folder that there is, got {path}")
        size = count * math.prod(datamodule.shape) * datamodule.grey.dtype.itemsize
        if size > physical_memory():
            raise InputError(f"--count: {count} images take {size / 2**30:.3g} GiB, more than this machine has")
        if guidance_scale is not None:
            model.guidance_scale = guidance_scale
        labels = _labels(model, datamodule, label, count)
        model = _prepared(model, ckpt_path).to(self.strategy.root_device)
        if self.fast_dev_run:
            count = min(count, batch * int(self.fast_dev_run))
        images = _drawn(model, datamodule, count, labels, seed, batch)
        if self.fast_dev_run:
            return
        asked = torch.full((count,), -1) if labels is None else labels
        save_arrays(path, images=images, labels=asked.numpy())
        print(f"samples: {escaped(path)}")
        if images.shape[-1] in (1, 3):
            beside = path.with_suffix(".png")
            with replacing(beside) as temporary:
                picture(images[:SHOWN], datamodule.grey.count).save(temporary, format="PNG")
            print(f"picture: {escaped(beside)}")


def _labels(method: Method, data: ImageData, label: int | None, count: int) -> torch.Tensor | None:
    """Requested classes, int64 ``(N,)``; None for unconditional samples."""
    if not method.conditional or method.guidance_scale == 0:
        if label is None:
            return None
        why = "guidance_scale is 0" if method.conditional else "it knows no classes"
        raise InputError(f"--label: {type(method).__name__} can be asked for no class, {why}; leave it out")
    if label is None:
        return torch.arange(count) % data.classes
    if label >= data.classes:
        raise InputError(f"--label must be 0 to {data.classes - 1}, a class of {data.name}, got {label}")
    return torch.full((count,), label)


def _prepared(method: Method, checkpoint: str | None) -> Method:
    """The method with the weights of a checkpoint, or else with its published ones."""
    if checkpoint is not None:
        return with_weights(method, Path(checkpoint))
    method.setup("predict")
    return method.eval().requires_grad_(False)


def _drawn(
    method: Method, data: ImageData, count: int, labels: torch.Tensor | None, seed: int, batch: int
) -> np.ndarray:
    """Grey levels ``(N, H, W, C)``, drawn in shards as a suite does."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("Samples", total=count)
        return np.concatenate(
            [
                draw_images(method, data, rows, labels, seed, batch, lambda drawn: bar.advance(task, drawn))
                for rows in batches(count, SHARD)
            ]
        )


def picture(images: np.ndarray, levels: int) -> Image.Image:
    """Images side by side, row by row.

    Args:
        images: Grey levels ``(N, H, W, C)`` of one channel or three.
        levels: Number of levels.
    """
    n, height, width, channels = images.shape
    columns, enlarged = min(n, COLUMNS), -(-LEAST_PIXELS // height)
    rows = -(-n // columns)
    canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
    canvas[:n] = (images * (255 / (levels - 1))).round()
    canvas = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    canvas = canvas.reshape(rows * height, columns * width, channels).repeat(enlarged, 0).repeat(enlarged, 1)
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
