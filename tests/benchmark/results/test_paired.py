"""Paired intervals and verdicts: cases computed by hand, and simulations of what the intervals cover."""

import math
from itertools import product

import numpy as np
import pytest

from benchmark.results.definitions import definition_of
from benchmark.results.paired import gains, image_gains, interval, margin, verdict

ACCURACY, FD, NLL, BALANCE = map(definition_of, ("accuracy/clean", "fd", "nll", "level_balance"))
T_2 = 2.9199856
"""Quantile 0.95 of t with 2 degrees of freedom."""


def test_the_interval_of_three_seeds_is_that_of_the_tables():
    low, high = interval(np.array([1.0, 2.0, 3.0]))  # sd 1, standard error 1 / sqrt(3)
    assert (low, high) == pytest.approx((2 - T_2 / math.sqrt(3), 2 + T_2 / math.sqrt(3)))


def test_the_parts_of_seeds_and_images_add_up_with_welch_and_satterthwaites_freedom():
    # SE_s^2 = SE_test^2 = 1/3 with 2 degrees each: SE^2 = 2/3, nu = (2/3)^2 / (1/3)^2 = 4, whose t is 2.1318468.
    low, high = interval(np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0]))
    assert (low, high) == pytest.approx((2 - 2.1318468 * math.sqrt(2 / 3), 2 + 2.1318468 * math.sqrt(2 / 3)))


def test_without_images_or_with_equal_ones_the_interval_is_that_of_seeds():
    seeds = np.array([0.1, 0.3, 0.2])
    assert interval(seeds, np.full(50, 0.2)) == pytest.approx(interval(seeds))


def test_equal_seeds_without_images_have_no_width():
    assert interval(np.full(3, 4.6)) == (pytest.approx(4.6), pytest.approx(4.6))


def test_gains_are_positive_where_a_is_better():
    a, b = np.array([0.9, 0.8]), np.array([0.7, 0.9])
    assert gains(ACCURACY, a, b) == pytest.approx([0.2, -0.1])
    assert gains(NLL, a, b) == pytest.approx([-0.2, 0.1])
    assert gains(FD, np.array([1.0]), np.array([2.0])) == pytest.approx([math.log(2)])
    assert gains(BALANCE, np.array([-1.0]), np.array([3.0])) == pytest.approx([2.0])  # nearer to 0


def test_a_ratio_needs_positive_values():
    with pytest.raises(ValueError, match="no ratio"):
        gains(definition_of("kd"), np.array([0.1]), np.array([-0.1]))


@pytest.mark.parametrize("metric", ["accuracy/noisy", "label_nll", "nll", "mse/level"])
def test_the_mean_gain_of_images_is_that_of_values_and_to_first_order_that_of_ratios(metric):
    definition, rng = definition_of(metric), np.random.default_rng(0)
    a, b = 1 + rng.random((3, 40)), 1 + rng.random((3, 40))
    values, images = gains(definition, a.mean(1), b.mean(1)), image_gains(definition, a, b)
    assert images.shape == (40,)
    # A ratio's own mean is in the values alone; images give the spread of the logarithm around it.
    assert images.mean() == pytest.approx(0 if definition.ratio else values.mean(), abs=1e-12)


def test_the_spread_of_images_in_a_ratio_is_that_of_its_logarithm():
    rng = np.random.default_rng(0)
    a, b = rng.gamma(4.0, size=(2000, 1, 100)), 3 * rng.gamma(4.0, size=(2000, 1, 100))
    logs = np.log(a.mean(-1) / b.mean(-1))[:, 0]
    spreads = [image_gains(FD, x, y).var(ddof=1) / 100 for x, y in zip(a, b, strict=True)]
    assert np.mean(spreads) == pytest.approx(logs.var(), rel=0.1)


def test_margins_are_the_tolerances_of_comparisons():
    b = np.array([5.0, 7.0])
    assert margin(ACCURACY, b) == 0.01
    assert margin(definition_of("label_nll"), b) == pytest.approx(0.6)  # a tenth of the mean, above 0.03
    assert margin(definition_of("is"), b) == pytest.approx(0.18)
    assert margin(FD, b) == pytest.approx(math.log(1.1))


BETTER = {
    (0.05, 0.01, 0.09): "reproduced",
    (0.02, 0.001, 0.039): "reproduced",  # the gain is the margin
    (0.019, 0.001, 0.037): "inconclusive",  # above 0, below the margin, which the interval may pass
    (0.01, 0.005, 0.015): "absent",  # above 0, surely below the margin
    (0.05, -0.01, 0.11): "inconclusive",
    (0.0, -0.019, 0.019): "absent",
    (0.0, -0.02, 0.02): "inconclusive",
    (-0.05, -0.09, -0.01): "contradicted",
    (-0.02, -0.039, -0.001): "contradicted",
    (-0.019, -0.037, -0.001): "inconclusive",
    (-0.05, -0.11, 0.01): "inconclusive",
}
EQUAL = {
    (0.0, -0.019, 0.019): "reproduced",
    (0.01, 0.005, 0.015): "reproduced",
    (0.0, -0.02, 0.02): "inconclusive",
    (0.05, 0.021, 0.079): "contradicted",
    (0.05, 0.02, 0.08): "inconclusive",
    (-0.05, -0.079, -0.021): "contradicted",
    (-0.05, -0.08, -0.02): "inconclusive",
    (0.01, -0.03, 0.05): "inconclusive",
}


@pytest.mark.parametrize(("numbers", "expected"), BETTER.items())
def test_verdicts_on_better(numbers, expected):
    assert verdict("better", *numbers, delta=0.02) == expected


@pytest.mark.parametrize(("numbers", "expected"), EQUAL.items())
def test_verdicts_on_equal(numbers, expected):
    assert verdict("equal", *numbers, delta=0.02) == expected


def test_rounding_takes_no_margin_away():
    gain = 0.29 - 0.28
    assert gain < 0.01
    assert verdict("better", gain, 0.001, 0.02, 0.01) == "reproduced"


# Simulations. Standard errors of the shares below are at most 0.004.

REPEATS = 20_000


def covered(ends, truth=0.0):
    low, high = ends
    return ((low <= truth) & (truth <= high)).mean()


def test_three_seeds_are_covered_by_the_t_interval_and_by_neither_bootstrap_nor_normal_quantile():
    seeds = np.random.default_rng(0).standard_normal((REPEATS, 3))
    assert covered(interval(seeds)) == pytest.approx(0.90, abs=0.01)
    mean, error = seeds.mean(1), seeds.std(1, ddof=1) / math.sqrt(3)
    assert covered((mean - 1.645 * error, mean + 1.645 * error)) == pytest.approx(0.76, abs=0.01)
    resampled = np.sort(np.stack([seeds[:, list(i)].mean(1) for i in product(range(3), repeat=3)], 1), axis=1)
    assert covered(np.percentile(resampled, (5, 95), axis=1)) == pytest.approx(0.61, abs=0.02)


def shared_images(n, images=100, repeats=4000):
    """Seeds' gains without any effect, on test images that all of them share, and the images' own gains."""
    rng = np.random.default_rng(n)
    of_images = rng.standard_normal((repeats, images)) * 0.67 * math.sqrt(images)
    of_seeds = rng.standard_normal((repeats, n))
    return of_images.mean(1, keepdims=True) + of_seeds, of_images + of_seeds.mean(1, keepdims=True)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_with_the_error_over_images_no_number_of_seeds_makes_false_claims_more_frequent(n):
    low, _ = interval(*shared_images(n))
    assert (low > 0).mean() < 0.065


def test_without_the_error_over_images_a_false_claim_looks_more_certain_with_every_seed():
    false = [(interval(shared_images(n)[0])[0] > 0).mean() for n in (3, 5, 10, 30)]
    assert false == sorted(false)
    assert false[2] == pytest.approx(0.22, abs=0.02)
    assert false[3] > 0.3
