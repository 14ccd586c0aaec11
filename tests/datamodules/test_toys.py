"""Toys: they are where their formulas say, in units that are stated, and go through batches like images."""

import math

import pytest
import torch
from scipy.stats import kstest

from datamodules.toys import TwoMoons, UniformCube

PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("part", PARTS)
def test_points_of_the_moons_lie_on_half_circles_of_radius_20(part):
    data = TwoMoons(count=1000, test_count=500)
    u, y = data.images(part)
    points = data.values(data.grey.centre(u)).flatten(1).double()
    for k, (centre, side) in enumerate([((-10.0, -5.0), 1), ((10.0, 5.0), -1)]):
        offset = points[y == k] - torch.tensor(centre)
        torch.testing.assert_close(offset.norm(dim=1), torch.full((len(offset),), 20.0).double(), atol=2e-3, rtol=0)
        assert (side * offset[:, 1] > -1e-3).all()
        angles = torch.atan2(side * offset[:, 1], side * offset[:, 0]).clamp(0, math.pi)
        assert kstest(angles / math.pi, "uniform").pvalue > 1e-3


def test_the_moons_are_balanced_centred_and_drawn_by_a_seed_of_their_own():
    data = TwoMoons()
    u, y = data.images("train")
    assert len(y) == 9000
    assert torch.bincount(y).tolist() == [4500, 4500]
    assert data.values(data.grey.centre(u)).mean(0).abs().max() < 0.5
    same, other = TwoMoons(seed=3), TwoMoons(data_seed=1)
    assert torch.equal(same.images("train")[0], u)
    assert not torch.equal(other.images("train")[0], u)
    everything = torch.cat([data.images(part)[0] for part in PARTS]).flatten(1)
    assert len(everything.unique(dim=0)) > 18_000  # a few share a bin


def test_jitter_is_in_units_of_the_toy_and_may_not_leave_the_range():
    smooth, rough = TwoMoons(), TwoMoons(jitter=1.0)
    difference = rough.values(rough.grey.centre(rough.images("test")[0])) - smooth.values(
        smooth.grey.centre(smooth.images("test")[0])
    )
    torch.testing.assert_close(difference.std(), torch.tensor(1.0), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match=r"jitter 30.0 puts points outside \+-40; make it smaller"):
        TwoMoons(jitter=30.0)


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1, 2, 3])
def test_pixels_of_the_cube_are_uniform_and_cost_what_the_formula_says(gamma):
    data = UniformCube(gamma, (3, 4, 5), count=500, test_count=100)
    assert (data.gamma, data.unit) == (pytest.approx(gamma, rel=1e-12), 1)
    assert (data.shape, data.classes) == ((3, 4, 5), 1)
    x = torch.cat([batch["labeled"][0] for batch in data.test_dataloader()])
    assert x.shape == (100, 3, 4, 5)
    values = x.flatten().double()
    assert values.abs().max() <= gamma / 2 * (1 + 1e-6)
    assert kstest(values, "uniform", (-gamma / 2, gamma)).pvalue > 1e-3
    assert data.nats_per_dim == pytest.approx(-math.log(gamma))
    bits = data.grey.bits_per_dim(torch.tensor([data.nats_per_dim * 60]), 60)
    assert bits.item() == pytest.approx(math.log2(2 * data.half_levels))


def test_pixels_of_the_cube_are_independent_and_parts_differ():
    data = UniformCube(2.0, (1, 2, 2), count=20_000)
    x = data.grey.centre(data.images("train")[0]).flatten(1)
    torch.testing.assert_close(torch.corrcoef(x.T), torch.eye(4), atol=0.04, rtol=0)
    assert not torch.equal(data.images("test")[0][:500], data.images("train")[0][:500])


@pytest.mark.parametrize("make", [TwoMoons, UniformCube])
def test_training_batches_are_the_levels_dequantised(make):
    data = make(count=200, test_count=50, batch_size=16)
    x, y = data.train_dataloader().batch(4)["labeled"]
    u, labels = data.images("train")
    assert u.dtype == torch.int32
    assert x.dtype == torch.float32
    assert x.abs().max() <= 1
    rows = [int(((data.grey.centre(u) - image).abs().flatten(1).amax(1)).argmin()) for image in x]
    assert (data.grey.centre(u[rows]) - x).abs().max() <= 2**-16 * 1.01
    assert torch.equal(labels[rows], y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1e-6}, "gamma must be at least 3.05176e-05, got 1e-06"),
        ({"image_shape": (3, 0, 4)}, r"image_shape must be three positive numbers, got \(3, 0, 4\)"),
    ],
)
def test_a_cube_that_cannot_be_made_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UniformCube(**options)
