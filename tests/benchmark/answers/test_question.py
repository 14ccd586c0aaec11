"""Dequantised test images are the same in any slices, and never all made at once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.answers.question import DequantisedImages, asked_images
from benchmark.suite.protocol import Protocol
from datamodules.digits import Digits
from datamodules.grey_levels import GreyLevels
from runs import peak_memory

GREY = GreyLevels(256)


def dequantised(u: torch.Tensor, seed: int = 3) -> DequantisedImages:
    data = SimpleNamespace(grey=GREY, some_images=lambda *_: (u, torch.zeros(len(u), dtype=torch.int64)))
    return DequantisedImages(data, Protocol(seed=seed))


@pytest.mark.parametrize("part", ["test", "validation"])
def test_images_are_of_the_part_that_the_protocol_asks_about(part):
    data = Digits()
    for asked, whole in zip(asked_images(data, Protocol(part=part)), data.images(part), strict=True):
        assert torch.equal(asked, whole)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 5), (3, 8, 8)])
def test_slices_have_the_noise_of_all_images_at_once(shape):
    u = torch.randint(256, (41, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    v = np.random.default_rng([3, 2]).random(u.shape, dtype=np.float32)
    whole, x = GREY.dequantise(u, torch.from_numpy(v)), dequantised(u)
    assert len(x) == 41
    for rows in (slice(0, 41), slice(0, 7), slice(7, 14), slice(40, 41), slice(35, 50), slice(9), slice(13, None)):
        assert torch.equal(x[rows], whole[rows])


def test_noise_is_made_for_the_slice_alone():
    x = dequantised(torch.zeros(1, 3, 64, 64, dtype=torch.uint8).expand(10**6, -1, -1, -1))
    assert len(x[999_990:]) == 10
    assert peak_memory(lambda: x[999_990:]) < 2**20  # float32 of ten images, where all would take 49 GB
