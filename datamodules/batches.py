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

    A pool's size is what one optimiser step sees, over all devices and all batches whose gradients are accumulated. It
    is cut into that many equal shards, of which device ``rank`` of ``world`` has number ``micro * world + rank`` in its
    batch ``micro``. A shard is a function of (seed, step, shard, number of shards): two devices see what one sees in
    two accumulated batches.

    Raises:
        ValueError: If a pool's size is not a multiple of the number of shards.
    """

    def __init__(self, data: "ImageData", images: Tensor, y: Tensor, pools: dict[str, tuple[Tensor, int]]) -> None:
        self.data, self.pools = data, pools
        trainer = data.trainer
        self.rank, self.world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        self.accumulated = 1 if trainer is None else trainer.accumulate_grad_batches
        self.shards = self.world * self.accumulated
        for name, (_, size) in pools.items():
            if size % self.shards:
                over = f"{self.world} devices" + (f" x {self.accumulated} steps" if self.accumulated > 1 else "")
                raise ValueError(f"the {name} batch of {size} does not divide over {over}")
        self.images, self.y = images.to(data.device), y.to(data.device)
        self.epoch_steps = max(math.ceil(len(pool) / size) for pool, size in pools.values())
        self._orders: dict[tuple[str, int], Tensor] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        trainer = self.data.trainer
        step = 0 if trainer is None else trainer.global_step
        end = (step // self.epoch_steps + 1) * self.epoch_steps
        for k in range(step, end):
            for micro in range(self.accumulated):
                yield self.batch(k, micro)

    def batch(self, k: int, micro: int = 0) -> dict[str, Any]:
        """This device's shard of optimiser step ``k``, or its shard number ``micro`` where it has several."""
        out: dict[str, Any] = {}
        shard = micro * self.world + self.rank
        key = (k, shard, self.shards) if self.shards > 1 else (k,)
        for stream, (name, (_, size)) in enumerate(self.pools.items()):
            share = slice(shard * size // self.shards, (shard + 1) * size // self.shards)
            rows = self._rows(stream, name, k)[share]
            u = self.data.augmented(self.images.index_select(0, rows), 5, stream, *key)
            x = self.data.dequantised(u, 2, stream, *key)
            out[name] = (x, self.y[rows]) if name == "labeled" else x
        return out

    def _rows(self, stream: int, name: str, k: int) -> Tensor:
        """Rows of step ``k``: positions ``k B .. (k + 1) B`` of the chain of shuffles."""
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
    """A part once through, in order, every image on exactly one device, with the same dequantisation each time.

    The part is cut into blocks of ``batch_size``, and each block over the devices, so that all have equally many
    batches. An image's dequantisation is that of its place in its block, on any number of devices.
    """

    def __init__(self, data: "ImageData", part: str, batch_size: int = 500) -> None:
        self.data, self.part, self.batch_size = data, part, batch_size
        trainer = data.trainer
        self.rank, self.world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _blocks(self) -> list[slice]:
        count = len(self.data.images(self.part)[1])
        starts = list(range(0, count, self.batch_size))
        if len(starts) > 1 and count - starts[-1] < self.world:
            starts.pop()  # a rest that leaves a device without an image joins the block before it
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]

    def __len__(self) -> int:
        return len(self._blocks())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        images, y = self.data.images(self.part)
        for rows in self._blocks():
            x, labels = self.data.dequantised(images[rows].to(self.data.device), 4, rows.start), y[rows]
            share = slice(self.rank * len(x) // self.world, (self.rank + 1) * len(x) // self.world)
            yield {"labeled": (x[share], labels[share].to(self.data.device))}
