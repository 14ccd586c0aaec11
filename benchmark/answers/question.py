"""Arrays on disk, batching, and the test images of an evaluation."""

import numpy as np
import torch
from torch import Tensor

from benchmark.suite.protocol import Protocol
from datamodules.base import ImageData


def some_test_images(data: ImageData, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Grey levels and labels of the test images that the protocol asks about."""
    return data.some_images("test", protocol.test_images, [protocol.seed, 4])


def dequantised_test(data: ImageData, protocol: Protocol) -> Tensor:
    u, _ = some_test_images(data, protocol)
    v = np.random.default_rng([protocol.seed, 2]).random(u.shape, dtype=np.float32)
    return data.grey.dequantise(u, torch.from_numpy(v))
