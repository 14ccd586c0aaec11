"""Randomness keyed by what it is for, never by the state of a process."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from methods.philox import normal


def keyed_seed(*key: int | str) -> int:
    """A 63-bit seed that is a function of ``key`` alone, e.g. ``("train", seed, step)``."""
    return random.Random("/".join(map(str, key))).getrandbits(63)


class KeyedNoise:
    """A stream of standard normal draws in which image ``i`` depends on ``(seed, stream, i)`` alone.

    The same image sees the same noise in a batch of 1 or 500, on one device or eight, before and after a restart.
    On the CPU each image has a generator of its own. Any other device makes its draws itself, by counters: other ones,
    keyed alike. Both come in blocks, so that what a block costs beside its pixels is paid rarely.

    Args:
        seed: Seed of the evaluation.
        stream: Name of the purpose, e.g. ``"sample"``; two purposes share no noise.
        indices: Number of each image of the batch, ``B`` of them.
        shape: Shape of one image, ``(C, H, W)``.
        device: Where the draws are wanted.

    Example:
        >>> whole = KeyedNoise(0, "sample", range(4), (1, 8, 8))()
        >>> part = KeyedNoise(0, "sample", [2, 3], (1, 8, 8))()
        >>> torch.equal(whole[2:], part)
        True
    """

    def __init__(
        self,
        seed: int,
        stream: str,
        indices: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape, self.device = tuple(shape), torch.device(device)
        self._length = len(indices)
        if self.device.type == "cpu":
            self._draws = _of_generators(seed, stream, indices, self.shape)
        else:
            self._draws = _of_counters(seed, stream, indices, self.shape, self.device)

    def __len__(self) -> int:
        return self._length

    def __call__(self) -> Tensor:
        """The next draw, ``(B, C, H, W)``."""
        return next(self._draws)


def _of_generators(seed: int, stream: str, indices: Sequence[int], shape: tuple[int, ...]) -> Iterator[Tensor]:
    generators = [torch.Generator().manual_seed(keyed_seed(seed, stream, int(i))) for i in indices]
    # The block length is a function of the shape alone: it is part of what the draws are.
    pixels = torch.Size(shape).numel()
    length = 1
    while True:
        yield from torch.stack([torch.randn(length, *shape, generator=g) for g in generators], dim=1)
        length = max(1, min(16, 2**15 // pixels))


def _of_counters(
    seed: int, stream: str, indices: Sequence[int], shape: tuple[int, ...], device: torch.device | str
) -> Iterator[Tensor]:
    key, images = keyed_seed(seed, stream), torch.tensor([int(i) for i in indices], dtype=torch.int64, device=device)
    most = max(1, min(16, 2**24 // max(1, len(images) * torch.Size(shape).numel())))  # bounds memory: 64 MiB of pixels
    start, length = 0, 1
    while True:
        yield from normal(key, images, range(start, start + length), shape)
        start, length = start + length, most
