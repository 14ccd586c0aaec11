"""Grey levels: dequantisation, its inverse, and bits per dimension."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.grey_levels import GreyLevels

COUNTS = pytest.mark.parametrize("count", [2, 17, 256, 2**16])


@COUNTS
def test_every_level_lies_at_the_centre_of_its_bin(count):
    levels = torch.arange(count, dtype=GreyLevels(count).dtype)
    centres = GreyLevels(count).centre(levels)
    assert centres.dtype == torch.float32
    torch.testing.assert_close(centres, (2 * torch.arange(count) + 1) / count - 1)


@COUNTS
def test_quantising_a_centre_gives_its_level_back(count):
    grey, levels = GreyLevels(count), torch.arange(count, dtype=GreyLevels(count).dtype)
    assert torch.equal(grey.quantise(grey.centre(levels)), levels)


@COUNTS
@given(v=st.floats(2**-7, 1 - 2**-7, width=32))  # off the edges by more than float32 rounds
def test_quantising_a_dequantised_level_gives_it_back(count, v):
    grey, levels = GreyLevels(count), torch.arange(count, dtype=GreyLevels(count).dtype)
    x = grey.dequantise(levels, torch.full((count,), v))
    assert torch.equal(grey.quantise(x), levels)


@COUNTS
def test_dequantised_bins_tile_the_range_of_images(count):
    grey, levels = GreyLevels(count), torch.arange(count, dtype=GreyLevels(count).dtype)
    low = grey.dequantise(levels, torch.zeros(count))
    high = grey.dequantise(levels, torch.ones(count))
    assert low[0] == -1
    assert high[-1] == 1
    torch.testing.assert_close(high[:-1], low[1:], rtol=0, atol=2e-7)
    assert (high > low).all()


@COUNTS
@given(x=st.floats(-1e6, 1e6, width=32))
def test_quantising_gives_the_nearest_bin(count, x):
    grey = GreyLevels(count)
    level = grey.quantise(torch.tensor([x]))
    distances = (grey.centre(torch.arange(count, dtype=GreyLevels(count).dtype)) - x).abs()
    assert distances[int(level)] <= distances.min() * (1 + 1e-5) + 1e-6


@COUNTS
def test_a_uniform_density_costs_log2_of_the_number_of_levels(count):
    dims = 12
    nats = torch.full((5,), -dims * math.log(2.0))  # density 1/2 on each coordinate's [-1, 1]
    bits = GreyLevels(count).bits_per_dim(nats, dims)
    torch.testing.assert_close(bits, torch.full((5,), math.log2(count)))


def test_a_density_that_knows_the_bin_costs_nothing():
    count, dims = 17, 6
    nats = torch.full((2,), -dims * math.log(2.0 / count))  # uniform on one bin
    torch.testing.assert_close(GreyLevels(count).bits_per_dim(nats, dims), torch.zeros(2), atol=1e-6, rtol=0)


def test_a_mixture_of_bins_costs_its_entropy():
    """Dequantised data under its own density of bins: bits/dim is the discrete entropy, exactly."""
    grey, weights = GreyLevels(4), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    levels = torch.arange(4)
    nats = (weights[levels] / (2 / grey.count)).log()
    entropy = -(weights * weights.log2()).sum()
    torch.testing.assert_close((weights * grey.bits_per_dim(nats, 1)).sum(), entropy)


@pytest.mark.parametrize("count", [256, 17])
def test_a_density_of_grey_levels_costs_their_entropy(count):
    """Pixels rounded from a Gaussian: its own density, dequantised, costs hardly more than their entropy."""
    grey, std = GreyLevels(count), 0.25
    edges = torch.linspace(-1, 1, count + 1, dtype=torch.float64)
    masses = torch.special.ndtr(edges / std).diff()
    masses = masses / masses.sum()
    entropy = -(masses * masses.log2()).nansum()
    normal = torch.distributions.Normal(0.0, std)
    x = grey.dequantise(torch.arange(count)[:, None], (torch.arange(64) + 0.5) / 64).double()
    bits = (masses[:, None] * grey.bits_per_dim(normal.log_prob(x), 1)).sum() / 64
    assert entropy < bits < entropy + (0.001 if count == 256 else 0.05)
    # On the lattice the Gaussian is a little narrower in units of the levels' distance; its density is all that counts.
    points = grey.lattice(torch.arange(count)).double()
    found = (masses * grey.lattice_bits_per_dim(normal.log_prob(points), 1)).sum()
    assert found == pytest.approx(float(entropy), abs=0.01 if count == 256 else 0.15)


def test_the_lattice_is_that_of_the_released_code_and_its_offset_exact():
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(GreyLevels(256).lattice(levels), levels / 127.5 - 1)
    nats = torch.full((3,), -12 * math.log(2.0))
    bits = GreyLevels(256).lattice_bits_per_dim(nats, 12)
    torch.testing.assert_close(bits, torch.full((3,), 1 + math.log2(127.5)))
    torch.testing.assert_close(GreyLevels(17).lattice_bits_per_dim(nats, 12), torch.full((3,), 4.0))


@pytest.mark.parametrize("count", [1, 0, -3, 2**16 + 1])
def test_a_number_of_levels_beyond_what_float32_can_dequantise_is_refused(count):
    with pytest.raises(ValueError, match=f"must number 2 to 65536, got {count}"):
        GreyLevels(count)
