import itertools
import math

import pytest
import torch

from methods.diffusion.noise import KeyedNoise, _of_counters, keyed_seed
from methods.philox import normal

SHAPES = [(1, 2, 2), (3, 8, 8), (3, 64, 64)]  # few pixels, a block of sixteen draws, a block of two


def draws(indices, shape=(3, 8, 8), seed=0, stream="sample", n=20, counted=False) -> torch.Tensor:
    """Draws of the CPU, or on it those of other devices."""
    if counted:
        return torch.stack(list(itertools.islice(_of_counters(seed, stream, indices, shape, "cpu"), n)))
    noise = KeyedNoise(seed, stream, indices, shape)
    return torch.stack([noise() for _ in range(n)])


kinds = pytest.mark.parametrize("counted", [False, True], ids=["generators", "counters"])


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_sees_the_same_noise_in_any_batch(shape, counted):
    alone, seven, many = (draws(i, shape, counted=counted) for i in ([5], range(7), range(63, -1, -1)))
    assert torch.equal(alone[:, 0], seven[:, 5])
    assert torch.equal(alone[:, 0], many[:, 58])


@kinds
def test_images_draws_seeds_and_streams_share_no_noise(counted):
    of = [draws([0, 1], counted=counted, **other) for other in ({}, {"seed": 1}, {"stream": "elbo"})]
    everything = torch.cat(of, dim=1)
    vectors = everything.flatten(0, 1).flatten(1)  # 120 vectors of 192 pixels
    correlation = torch.corrcoef(vectors).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(192)


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_the_moments_of_a_standard_normal(shape, counted):
    z = draws(range(2000 // math.prod(shape) + 4), shape, n=40, counted=counted).double()
    n = z.numel()
    moments = [z.mean(), z.square().mean() - 1, z.pow(3).mean(), z.pow(4).mean() - 3]
    errors = [math.sqrt(v / n) for v in (1, 2, 15, 96)]
    assert all(abs(m) < 4.5 * e for m, e in zip(moments, errors, strict=True))


@pytest.mark.parametrize(("shape", "block"), zip(SHAPES, (16, 16, 2), strict=True))
def test_on_the_cpu_each_image_has_a_generator_of_its_own(shape, block):
    found = draws([3, 2**40], shape, seed=7, n=1 + 2 * block)
    for image, z in zip([3, 2**40], found.unbind(1), strict=True):
        generator = torch.Generator().manual_seed(keyed_seed(7, "sample", image))
        parts = [torch.randn(length, *shape, generator=generator) for length in (1, block, block)]
        assert torch.equal(z, torch.cat(parts))


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_blocks_of_counted_draws_change_none(count):
    found = draws(range(count), (3, 16, 16), n=5, counted=True)
    wanted = [
        normal(keyed_seed(0, "sample"), torch.tensor([count - 1]), range(d, d + 1), (3, 16, 16)) for d in range(5)
    ]
    assert torch.equal(found[:, -1], torch.cat(wanted)[:, 0])


def test_another_device_makes_its_draws_itself():
    noise = KeyedNoise(0, "sample", range(5), (3, 8, 8), "meta")
    first, *others = (noise() for _ in range(20))
    assert len(noise) == 5
    assert all(z.device.type == "meta" and z.shape == (5, 3, 8, 8) for z in (first, *others))


def test_seeds_are_a_fixed_function_of_the_whole_key():
    assert keyed_seed("train", 0, 17) == 4917951436826329731
    keys = [("train", 0, 17), ("train", 1, 7), ("train", 17, 0), ("val", 0, 17), ("train", 0), ("train", 0, 1, 7)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= keyed_seed(*key) < 2**63 for key in keys)


def test_the_number_of_images_is_the_length():
    assert len(KeyedNoise(0, "sample", range(5), (1, 2, 2))) == 5
