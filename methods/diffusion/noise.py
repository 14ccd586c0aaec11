"""Randomness keyed by what it is for, never by the state of a process."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def keyed_seed(*key: int | str) -> int:
    """A 63-bit seed that is a function of ``key`` alone, e.g. ``("train", seed, step)``."""
    return random.Random("/".join(map(str, key))).getrandbits(63)


class KeyedNoise:
    """A stream of standard normal draws in which image ``i`` depends on ``(seed, stream, i)`` alone.

    The same image sees the same noise in a batch of 1 or 500, on one device or eight, before and after a restart.
    Draws come from the CPU's generator, in blocks, so that the cost of one generator per image is paid rarely.

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
        self._generators = [torch.Generator().manual_seed(keyed_seed(seed, stream, int(i))) for i in indices]
        self._draws = self._stream()

    def __len__(self) -> int:
        return len(self._generators)

    def __call__(self) -> Tensor:
        """The next draw, ``(B, C, H, W)``."""
        return next(self._draws)

    def _stream(self) -> Iterator[Tensor]:
        # The block length is a function of the shape alone: it is part of what the draws are.
        pixels = torch.Size(self.shape).numel()
        length = 1
        while True:
            block = torch.stack([torch.randn(length, *self.shape, generator=g) for g in self._generators], dim=1)
            yield from block.to(self.device)
            length = max(1, min(16, 2**15 // pixels))
