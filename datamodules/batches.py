"""Batches that are a function of the step alone: for training, and once through a part."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from datamodules.base import ImageData


class TrainingBatches:
    """The training batches of one epoch, from the trainer's current step on.

    Each pool is read as an endless chain of shuffles of itself, so that a batch may exceed a small pool and every image
    comes up equally often. An epoch is one pass over the largest pool, in whole optimiser steps.
    """

    def __init__(self, data: "ImageData", images: Tensor, y: Tensor, pools: dict[str, tuple[Tensor, int]]) -> None:
        self.data, self.pools = data, pools
        trainer = data.trainer
        self.rank, self.world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        for name, (_, size) in pools.items():
            if size % self.world:
                raise ValueError(f"the {name} batch of {size} does not divide over {self.world} devices")
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        self.images, self.y = images.to(device), y.to(device)
        self.accumulated = 1 if trainer is None else trainer.accumulate_grad_batches
        longest = max(math.ceil(len(pool) / size) for pool, size in pools.values())
        self.epoch_steps = math.ceil(longest / self.accumulated) * self.accumulated
        self._orders: dict[tuple[str, int], Tensor] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        trainer = self.data.trainer
        step = 0 if trainer is None else trainer.global_step * self.accumulated
        end = (step // self.epoch_steps + 1) * self.epoch_steps
        for k in range(step, end):
            yield self.batch(k)

    def batch(self, k: int) -> dict[str, Any]:
        """This device's share of batch ``k``."""
        out: dict[str, Any] = {}
        for stream, (name, (_, size)) in enumerate(self.pools.items()):
            rows = self._rows(stream, name, k)
            share = slice(self.rank * size // self.world, (self.rank + 1) * size // self.world)
            u = self.data.augmented(self.images.index_select(0, rows), 5, stream, k)
            x = self.data.dequantised(u, 2, stream, k)[share]
            out[name] = (x, self.y[rows[share]]) if name == "labeled" else x
        return out

    def _rows(self, stream: int, name: str, k: int) -> Tensor:
        """Rows of batch ``k``: positions ``k B .. (k + 1) B`` of the chain of shuffles."""
        pool, size = self.pools[name]
        epochs = range(k * size // len(pool), ((k + 1) * size - 1) // len(pool) + 1)
        chain = torch.cat([self._order(stream, name, epoch) for epoch in epochs])
        start = k * size - epochs[0] * len(pool)
        return chain[start : start + size]

    def _order(self, stream: int, name: str, epoch: int) -> Tensor:
        if (name, epoch) not in self._orders:
            pool = self.pools[name][0]
            self._orders = {key: order for key, order in self._orders.items() if key[0] != name or key[1] >= epoch - 1}
            shuffle = np.random.default_rng([self.data.seed, 3, stream, epoch]).permutation(len(pool))
            self._orders[name, epoch] = pool[torch.from_numpy(shuffle)].to(self.images.device)
        return self._orders[name, epoch]


class EvaluationBatches:
    """A part once through, in order, every image on exactly one device, with the same dequantisation each time."""

    def __init__(self, data: "ImageData", part: str, batch_size: int = 500) -> None:
        self.data, self.part, self.batch_size = data, part, batch_size
        trainer = data.trainer
        self.rank, self.world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        self.device = torch.device("cpu") if trainer is None else trainer.strategy.root_device

    def _starts(self) -> range:
        count = len(self.data.images(self.part)[1])
        return range(self.rank * self.batch_size, count, self.world * self.batch_size)

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        images, y = self.data.images(self.part)
        for start in self._starts():
            rows = slice(start, start + self.batch_size)
            x = self.data.dequantised(images[rows], 4, start).to(self.device)
            yield {"labeled": (x, y[rows].to(self.device))}
