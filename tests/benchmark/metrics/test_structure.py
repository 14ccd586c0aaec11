"""Structure of pictures: known pictures have known numbers."""

import numpy as np
import pytest

from benchmark.metrics.structure import concentration, neighbour_correlation


def test_noise_has_no_correlation_of_neighbours_a_ramp_nearly_one_and_a_chessboard_minus_one():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(neighbour_correlation(rng.normal(size=(400, 1, 16, 16))).mean(), 0, atol=0.01)
    rows, columns = np.mgrid[:32, :32]
    assert neighbour_correlation((rows + columns)[None, None])[0] > 0.99
    np.testing.assert_allclose(neighbour_correlation((-1.0) ** (rows + columns)[None, None]), -1)


def test_a_picture_that_is_equal_in_each_channel_has_no_structure():
    flat = np.broadcast_to(np.array([0.1, 0.7, -3.0])[:, None, None], (2, 3, 8, 8))
    np.testing.assert_array_equal(neighbour_correlation(flat), 0)


def test_correlation_does_not_depend_on_scale_and_offset():
    pictures = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).cumsum(3)
    np.testing.assert_allclose(neighbour_correlation(7 * pictures + 2), neighbour_correlation(pictures))


@pytest.mark.parametrize(("pixels", "share"), [(1, 1.0), (10, 1.0), (50, 0.2), (100, 0.1)])
def test_concentration_is_the_share_of_the_tenth_of_pixels_that_change_most(pixels, share):
    change = np.zeros((1, 3, 10, 10))
    change.reshape(3, 100)[:, :pixels] = 0.5
    np.testing.assert_allclose(concentration(change), share)
    np.testing.assert_array_equal(concentration(0 * change), 0)
