"""The images that an evaluation asks about."""

import numpy as np
import torch
from torch import Tensor

from benchmark.suite.protocol import Protocol
from datamodules.base import ImageData


def asked_images(data: ImageData, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Grey levels and labels of the images that the protocol asks about: of the test part, or of validation."""
    return data.some_images(protocol.part, protocol.test_images, [protocol.seed, 4])


class DequantisedImages:
    """Those images dequantised, ``(N, C, H, W)`` in [-1, 1], made where they are sliced: all at once are too many.

    One generator gives the noise of all pixels from the first to the last; a slice begins with it where its images do.

    Args:
        data: The data.
        protocol: Gives the seed.
    """

    def __init__(self, data: ImageData, protocol: Protocol) -> None:
        self.u, _ = asked_images(data, protocol)
        self.grey, self.seed = data.grey, protocol.seed

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, rows: slice) -> Tensor:
        u = self.u[rows]
        before = rows.indices(len(self))[0] * self.u.shape[1:].numel()
        rng = np.random.default_rng([self.seed, 2])
        rng.bit_generator.advance(before // 2)  # a state gives two numbers of float32
        rng.random(before % 2, dtype=np.float32)
        return self.grey.dequantise(u, torch.from_numpy(rng.random(u.shape, dtype=np.float32)))
