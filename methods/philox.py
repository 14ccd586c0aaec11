"""Philox, a counter-based random generator: draws are a function of key and counter, computed where the tensors are.

Keyed noise and the dequantisation of training images come from it on every device but the CPU, which has its own
generators. No GPU has run it yet; tests run it on the CPU, against published answers.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Sec. 3.3, Philox4x32 with 10 rounds.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LOW = 2**32 - 1
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
"""Steps of the two words of the key from round to round."""
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four words of 32 bits, each in int64."""


def philox(counter: Words, key: int) -> Words:
    """Philox4x32-10: four random words of four counted ones, elementwise over shapes that broadcast.

    A word is int64 with the upper half 0. Products wrap at 64 bits, which leaves all their bits as they are unsigned.
    About a hundred operations that have no branch, so that ``torch.compile`` can make one kernel of them.

    Args:
        counter: Words of the counter, each in ``0 .. 2**32 - 1``, the lowest first.
        key: In ``0 .. 2**64 - 1``.
    """
    a, b, c, d = counter
    low, high = key & _LOW, key >> 32
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        # The upper half of b and d is not 0 on the way; it falls to the mask in the next round.
        a, b, c, d = (second >> 32 ^ b ^ low) & _LOW, second, (first >> 32 ^ d ^ high) & _LOW, first
        low, high = low + _WEYL[0] & _LOW, high + _WEYL[1] & _LOW
    return a, b & _LOW, c, d & _LOW


def uniform(key: int, images: Tensor, draws: range, shape: Sequence[int]) -> Tensor:
    """Uniform draws on [0, 1), multiples of ``2**-24`` in float32, ``(len(draws), B, *shape)``.

    Image ``i`` of draw ``d`` is a function of ``(key, i, d)`` and ``shape`` alone, on any device.

    Args:
        key: In ``0 .. 2**64 - 1``.
        images: Number of each image, int64 ``(B,)``, on the device of the draws.
        draws: Numbers of the draws, below ``2**32``.
        shape: Shape of one image.
    """
    parts = [(word >> 8).float() * 2**-24 for word in _words(key, images, draws, shape)]
    return _images(parts, shape)


def normal(key: int, images: Tensor, draws: range, shape: Sequence[int]) -> Tensor:
    """Standard normal draws in float32, ``(len(draws), B, *shape)``, keyed as those of ``uniform``.

    By Box and Muller's transform of words of 32 bits: no draw lies beyond 6.8.
    """
    parts = []
    words = _words(key, images, draws, shape)
    for length, turn in (words[:2], words[2:]):
        radius = ((length.float() + 0.5) * 2**-32).log_().mul_(-2).sqrt_()
        angle = turn.float() * (math.tau * 2**-32)
        parts += [radius * angle.cos(), radius * angle.sin()]
    return _images(parts, shape)


def _words(key: int, images: Tensor, draws: range, shape: Sequence[int]) -> Words:
    """Words for a quarter of the pixels each, ``(len(draws), B, pixels / 4)``, rounded up."""
    quarter = torch.arange(-(-math.prod(shape) // 4), device=images.device)
    draw = torch.arange(draws.start, draws.stop, device=images.device)
    image = images[:, None]
    return philox((quarter, draw[:, None, None], image & _LOW, image >> 32 & _LOW), key)


def _images(parts: list[Tensor], shape: Sequence[int]) -> Tensor:
    pixels = torch.cat(parts, -1)[..., : math.prod(shape)]
    return pixels.unflatten(-1, tuple(shape))
