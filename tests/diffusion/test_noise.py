import math

import pytest
import torch

from methods.diffusion.noise import KeyedNoise, keyed_seed

SHAPES = [(1, 2, 2), (3, 8, 8), (3, 64, 64)]  # few pixels, a block of sixteen draws, a block of two


def draws(indices, shape=(3, 8, 8), seed=0, stream="sample", n=20) -> torch.Tensor:
    noise = KeyedNoise(seed, stream, indices, shape)
    return torch.stack([noise() for _ in range(n)])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_sees_the_same_noise_in_any_batch(shape):
    alone, seven, many = (draws(indices, shape) for indices in ([5], range(7), range(63, -1, -1)))
    assert torch.equal(alone[:, 0], seven[:, 5])
    assert torch.equal(alone[:, 0], many[:, 58])


def test_images_draws_seeds_and_streams_share_no_noise():
    everything = torch.cat([draws([0, 1]), draws([0, 1], seed=1), draws([0, 1], stream="elbo")], dim=1)
    vectors = everything.flatten(0, 1).flatten(1)  # 120 vectors of 192 pixels
    correlation = torch.corrcoef(vectors).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(192)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_the_moments_of_a_standard_normal(shape):
    z = draws(range(2000 // math.prod(shape) + 4), shape, n=40).double()
    n = z.numel()
    moments = [z.mean(), z.square().mean() - 1, z.pow(3).mean(), z.pow(4).mean() - 3]
    errors = [math.sqrt(v / n) for v in (1, 2, 15, 96)]
    assert all(abs(m) < 4.5 * e for m, e in zip(moments, errors, strict=True))


def test_seeds_are_a_fixed_function_of_the_whole_key():
    assert keyed_seed("train", 0, 17) == 4917951436826329731
    keys = [("train", 0, 17), ("train", 1, 7), ("train", 17, 0), ("val", 0, 17), ("train", 0), ("train", 0, 1, 7)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= keyed_seed(*key) < 2**63 for key in keys)


def test_the_number_of_images_is_the_length():
    assert len(KeyedNoise(0, "sample", range(5), (1, 2, 2))) == 5
