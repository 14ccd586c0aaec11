"""Images drawn by a method, as grey levels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmark.system.arrays import batches
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method

SHARD = 1000
"""Samples of a shard."""
Drawn = Callable[[int], None]
"""Receives the number of images of each drawn batch."""


def draw_images(
    method: Method, data: ImageData, rows: range, labels: Tensor | None, seed: int, batch: int, drawn: Drawn
) -> np.ndarray:
    """Grey levels ``(N, H, W, C)`` of the samples ``rows``; sample ``i`` depends on ``(seed, i)`` alone.

    Args:
        method: The method.
        data: Gives image shape and grey levels.
        rows: Numbers of the samples.
        labels: Classes of all samples from number 0; None for unconditional samples.
        seed: Seed of the noise.
        batch: Samples drawn at once.
        drawn: Receives the size of each batch.

    Raises:
        FloatingPointError: If a sample is not finite.
    """
    images = []
    for part in batches(len(rows), batch):
        numbers = rows[part.start : part.stop]
        noise = KeyedNoise(seed, "sample", numbers, data.shape, method.device)
        x = method.sample(noise, None if labels is None else labels[numbers.start : numbers.stop].to(method.device))
        if not bool(torch.isfinite(x).all()):
            raise FloatingPointError(f"samples {numbers.start} to {numbers.stop - 1} are not finite")
        images.append(channels_last(data.grey.quantise(x.cpu())))
        drawn(len(numbers))
    return np.concatenate(images)


def channels_last(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()
