"""Differences of results: tolerances by hand, and no way for a worse, lost or other number to pass."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import number, results, table

from benchmark.compare import to_json, to_markdown, to_text
from benchmark.results.definitions import DEFINITIONS, definition_of
from benchmark.results.differences import change, compare
from benchmark.results.record import Results, failed, not_applicable

T_2 = 2.9199856
"""Quantile 0.95 of t with 2 degrees of freedom."""


def code(old, new, strict=False) -> int:
    return compare(old, new).exit_code(strict)


def one_change(old, new):
    (found,) = compare(results(*old), results(*new)).changes
    return found


# --- what counts as worse


@pytest.mark.parametrize(
    ("metric", "old", "new", "verdict"),
    [
        ("accuracy/clean", 0.98, 0.97, "same"),  # the floor itself, in spite of floating point
        ("accuracy/clean", 0.98, 0.9699, "worse"),
        ("accuracy/clean", 0.97, 0.99, "better"),
        ("fd", 1.0, 1.1, "same"),
        ("fd", 1.0, 1.11, "worse"),
        ("fd", 1.0, 0.89, "better"),
        ("fd", 0.1, 0.149, "same"),  # absolute floor of a small value
        ("nll", 1.80, 1.83, "worse"),
        ("nll", -7.14, -7.00, "worse"),
        ("nll", -7.00, -7.14, "better"),
        ("is", 7.0, 6.7, "worse"),
        ("level_balance", -1.9, -2.2, "worse"),
        ("level_balance", -1.9, 1.9, "same"),
        ("level_balance", 2.2, -0.5, "better"),
        ("nn_ratio", 1.1, 0.8, "worse"),
        ("nn_ratio", 1.1, 1.2, "worse"),
        ("nn_ratio", 1.2, 1.05, "better"),
    ],
)
def test_worse_follows_the_direction_of_the_metric(metric, old, new, verdict):
    found = one_change([number(metric=metric, value=old)], [number(metric=metric, value=new)])
    assert found.verdict == verdict
    expected = {"same": 0, "better": 0, "worse": 1}[verdict]
    assert code(results(number(metric=metric, value=old)), results(number(metric=metric, value=new))) == expected


@pytest.mark.parametrize("definition", [d for d in DEFINITIONS if d.gating], ids=lambda d: d.pattern)
def test_every_gating_metric_can_fail_a_comparison(definition):
    metric = definition.pattern.replace("*", "0.5")
    good = definition.target if definition.target is not None else 0.9 if definition.higher_is_better else 0.1
    bad = 0.1 if good == 0.9 else good + 0.5 if definition.high <= 2 else good + 5
    bad = -0.5 if definition.low == -1 else bad
    assert code(results(number(metric=metric, value=good)), results(number(metric=metric, value=bad))) == 1
    assert code(results(number(metric=metric, value=bad)), results(number(metric=metric, value=good))) == 0


def test_the_tolerance_is_the_largest_of_three_computed_by_hand():
    def pairs(old, new, metric="fd", old_error=None, new_error=None):
        return [
            (
                number(seed=k, metric=metric, value=a, stderr=old_error),
                number(seed=k, metric=metric, value=b, stderr=new_error),
            )
            for k, (a, b) in enumerate(zip(old, new, strict=True))
        ]

    small = change(pairs([0.2], [0.2]))
    assert (small.tolerance, small.tolerance_from) == (0.05, "absolute")
    large = change(pairs([2.0], [2.0]))
    assert (large.tolerance, large.tolerance_from) == (pytest.approx(0.2), "relative")
    # Two seeds are too few for a spread: errors 0.3 and 0.4 of two records each, 3 * sqrt(0.18 + 0.32) / 2.
    within = change(pairs([1.0, 9.0], [1.0, 9.0], old_error=0.3, new_error=0.4))
    assert (within.tolerance, within.tolerance_from) == (pytest.approx(3 * 0.5**0.5 / 2), "3 standard errors")
    # Three seeds: what they share cancels, differences -0.1, 0 and 0.1 have sd 0.1, whatever the records say.
    over = change(pairs([0.7, 1.0, 1.3], [0.6, 1.0, 1.4], old_error=99.0, new_error=99.0))
    assert (over.tolerance, over.tolerance_from) == (pytest.approx(T_2 * 0.1 / 3**0.5), "paired interval of seeds")
    assert (over.seeds, over.old, over.new) == ((0, 1, 2), pytest.approx(1.0), pytest.approx(1.0))
    one_side = change(pairs([1.0], [1.0], old_error=0.2))
    assert one_side.tolerance == pytest.approx(0.6)


def seeds_of(old, new, metric):
    """Old and new records of as many seeds as there are values."""
    return [
        (number(seed=k, metric=metric, value=float(a)), number(seed=k, metric=metric, value=float(b)))
        for k, (a, b) in enumerate(zip(old, new, strict=True))
    ]


def test_a_loss_that_all_seeds_share_is_told_where_the_spread_of_seeds_hid_it():
    old = np.array([1.0, 2.0, 3.0])
    found = change(seeds_of(old, old + np.array([0.12, 0.10, 0.14]), "nll"))  # sd 0.02
    assert found.tolerance == pytest.approx(T_2 * 0.02 / 3**0.5)
    assert (found.verdict, found.gain) == ("worse", pytest.approx(-0.12))
    assert change(seeds_of(old, old - np.array([0.12, 0.10, 0.14]), "nll")).verdict == "better"
    two = change(seeds_of(old[:2], old[:2] + np.array([0.5, 0.01]), "nll"))
    assert two.tolerance_from == "absolute"  # too few for an interval
    scattered = change(seeds_of(old, old + np.array([0.5, -0.2, 0.1]), "nll"))
    assert (scattered.verdict, scattered.tolerance_from) == ("same", "paired interval of seeds")


def test_ratios_are_judged_by_differences_in_the_metrics_unit_down_to_0():
    found = change(seeds_of([0.0, 0.0, 0.0], [0.1, 0.2, 0.3], "fd"))  # sd 0.1
    assert found.tolerance == pytest.approx(T_2 * 0.1 / 3**0.5)
    assert (found.gain, found.verdict) == (pytest.approx(-0.2), "worse")


def test_the_spread_over_test_images_widens_the_tolerance():
    """One image of 4 is lost with every seed: gains of images are 0, 0, 0 and -1, whose variance is 1/4."""
    old, new = np.ones((3, 4)), np.tile([1.0, 1.0, 1.0, 0.0], (3, 1))
    pairs = seeds_of(old.mean(1), new.mean(1), "accuracy/clean")
    found = change(pairs, old, new)
    assert found.tolerance == pytest.approx(2.3533634 * (0.25 / 4) ** 0.5)  # t with 3 degrees of freedom
    assert (found.tolerance_from, found.verdict) == ("paired interval of seeds and images", "same")
    for one_side in ((None, new), (old, None), (old, new[:, :3])):
        found = change(pairs, *one_side)
        assert (found.tolerance, found.tolerance_from, found.verdict) == (0.01, "absolute", "worse")


@pytest.mark.parametrize("metric", ["accuracy/clean", "nll", "fd", "level_balance"])
def test_a_rerun_of_equal_numbers_is_the_same_with_scores_of_images_and_without(metric):
    scores = np.random.default_rng(0).random((5, 30))
    for seeds in range(1, 6):
        pairs = seeds_of(scores[:seeds].mean(1), scores[:seeds].mean(1), metric)
        for kept in ((None, None), (scores[:seeds], scores[:seeds])):
            found = change(pairs, *kept)
            assert (found.gain, found.verdict) == (0.0, "same")
            assert found.tolerance_from in ("absolute", "relative")


def test_chance_alone_reads_worse_in_one_of_twenty_and_never_within_the_metrics_tolerance():
    """Trainings of one method, differences of sd 1 between seeds and of sd 10 between the 100 images that all share."""
    rng = np.random.default_rng(0)

    def share_worse(scale, kept, repeats=400):
        worse = 0
        for _ in range(repeats):
            of_images = scale * (10 * rng.standard_normal(100) + rng.standard_normal((5, 1)))
            old = np.zeros((5, 100)) + 5
            new = old + of_images
            pairs = seeds_of(old.mean(1), new.mean(1), "nll")
            worse += change(pairs, *((old, new) if kept else ())).verdict == "worse"
        return worse / repeats

    assert share_worse(1.0, kept=True) < 0.08  # standard error 0.011
    assert share_worse(1.0, kept=False) > 0.12  # of this test set, not of the method
    assert share_worse(0.002, kept=True) == 0  # 0.02 is the tolerance of nll


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_spread_too_large_for_a_number_is_not_compared(seeds):
    old, new = (
        [number(seed=k, metric="nll", value=v * (-1) ** k, stderr=9e299) for k in range(seeds)] for v in (9e299, 0)
    )
    found = compare(results(*old), results(*new))
    assert found.exit_code() == (3 if seeds == 3 else 0)
    assert ("numbers too large to compare" in to_text(found)) == (seeds == 3)
    assert json.loads(to_json(found))["exit_code"] == found.exit_code()


def test_a_distance_to_a_target_is_taken_seed_by_seed():
    old = [number(seed=k, metric="level_balance", value=0.0) for k in range(2)]
    new = [number(seed=k, metric="level_balance", value=(-5.0, 5.0)[k]) for k in range(2)]
    found = one_change(old, new)
    assert (found.new, found.gain, found.verdict) == (0.0, -5.0, "worse")


def test_only_seeds_that_both_have_are_compared():
    old = [number(seed=k, value=0.98 - 0.1 * k) for k in range(3)]
    found = one_change(old, [number(seed=0, value=0.98)])
    assert (found.seeds, found.old, found.verdict) == ((0,), 0.98, "same")


def test_the_output_states_each_tolerance_and_where_it_comes_from():
    text = to_text(compare(table(), table(fd=0.4)))
    assert "fd         0.3 -> 0.4, gain -0.1, tolerance 0.05 (absolute), seed 0, n=1000" in text
    assert text.splitlines()[-1] == "regression, exit code 1: 1 worse, 9 same"


def test_timings_warn_and_never_fail():
    slow = compare(table(), table(cpu_seconds_train=500.0))
    assert slow.exit_code() == 0
    assert "warning  1 cell   1 number   costs and the like, which decide nothing" in to_text(slow)
    assert "| warning | da | cpu_seconds/train | 100 -> 500" in to_markdown(slow)
    gone = results(*(r for r in table().records if r.metric != "cpu_seconds/train"))
    assert code(table(), gone) == 0
    assert "warning" in to_text(compare(table(), gone))
    assert (
        code(table(), results(*(dataclasses.replace(r, n=7) if "cpu" in r.metric else r for r in table().records))) == 0
    )


def test_improvements_fail_only_with_strict():
    assert code(table(), table(fd=0.1)) == 0
    assert code(table(), table(fd=0.1), strict=True) == 1
    assert "better" in to_text(compare(table(), table(fd=0.1)))
    assert to_text(compare(table(), table(fd=0.1)), strict=True).splitlines()[-1].startswith("better (--strict)")
    assert code(table(), table(cpu_seconds_train=1.0), strict=True) == 0


def test_what_is_better_in_a_cell_is_one_line_that_names_some_metrics():
    levels = [f"accuracy/t=0.{digit}" for digit in range(1, 7)]
    old, new = ([number(metric=metric, value=value) for metric in levels] for value in (0.5, 0.9))
    (told,) = [line for line in to_text(compare(results(*old), results(*new))).splitlines() if "better" in line[:6]]
    assert told.split(maxsplit=2) == ["better", "da", f"6 numbers  {', '.join(levels[:4])} and 2 more"]


# --- what cannot be compared, and what is not there


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (number(nfe=35), number(nfe=18), "protocol nfe 35 -> 18"),
        (number(), number(feature_network="x"), "protocol feature_network (none) -> x"),
        (number(guidance_scale=1), number(guidance_scale=3), "protocol guidance_scale 1 -> 3"),
        (number(n=360), number(n=180), "sample count 360 -> 180"),
        (number(seed=0), number(seed=1), "no common seed: seed 0 -> seed 1"),
    ],
)
def test_numbers_measured_otherwise_are_not_compared(old, new, message):
    found = compare(results(old), results(new))
    assert (found.exit_code(), found.changes) == (3, ())
    assert message in to_text(found)


def test_the_nearest_protocol_is_named():
    new = results(number(nfe=18, sampler="DDIM"), number(seed=1, nfe=18, sampler="Heun"))
    assert "protocol nfe 35 -> 18\n" in to_text(compare(results(number(nfe=35, sampler="Heun")), new))


def test_one_more_guidance_scale_is_new_and_one_less_is_missing():
    one, two = results(number(guidance_scale=1)), results(number(guidance_scale=1), number(guidance_scale=3))
    assert code(one, two) == 0
    assert 'new protocol {"guidance_scale": 3}' in to_text(compare(one, two))
    assert code(two, one) == 4


@pytest.mark.parametrize(
    ("old", "new", "expected", "message"),
    [
        ([number()], [failed("da", "m", 0, "accuracy/clean", "boom")], 4, "failed with seed 0: boom"),
        ([number(nfe=1)], [failed("da", "m", 0, "accuracy/clean", "boom")], 4, "failed with seed 0: boom"),
        (
            [number(), number(seed=1)],
            [number(), failed("da", "m", 1, "accuracy/clean", "boom")],
            4,
            "failed with seed 1",
        ),
        (
            [number()],
            [not_applicable("da", "m", 0, "accuracy/clean", "gone")],
            4,
            "was a number with seed 0, now n/a: gone",
        ),
        ([number()], [number("cdm")], 4, "cell missing"),
        ([number(), number(metric="nll")], [number()], 4, "missing, was ok"),
        ([number(), not_applicable("da", "m", 0, "nll", "no")], [number()], 4, "missing, was n/a"),
        ([failed("da", "m", 0, "nll", "x")], [failed("da", "m", 0, "nll", "x")], 4, "failed with seed 0: x"),
        ([number()], [number(), failed("new", "m", 0, "nll", "x")], 4, "failed with seed 0: x"),
        (
            [not_applicable("da", "m", 0, "nll", "x")],
            [not_applicable("da", "m", 0, "nll", "y")],
            0,
            "nothing to compare",
        ),
        ([not_applicable("da", "m", 0, "nll", "x")], [number(metric="nll")], 0, "measured now, was n/a"),
        ([failed("da", "m", 0, "nll", "x")], [number(metric="nll")], 0, "measured now, was failed"),
        ([number()], [number(), number("cdm")], 0, "new cell"),
        ([number()], [number(), number(metric="nll")], 0, "measured now, was not there"),
        ([], [], 0, "nothing to compare"),
    ],
)
def test_failed_and_missing_numbers_are_told_from_new_and_inapplicable_ones(old, new, expected, message):
    found = compare(results(*old), results(*new))
    assert found.exit_code() == expected
    assert message in to_text(found)


def test_one_error_of_a_cell_is_one_line():
    new = results(*(failed("da", "m", seed, metric, "boom") for metric in ("fd", "nll") for seed in (0, 1)))
    (problem,) = compare(results(), new).of_kind("incomplete")
    assert (problem.metrics, problem.message) == (("nll", "fd"), "failed with seeds 0, 1: boom")


def test_not_comparable_wins_over_incomplete_and_that_over_worse():
    old = results(number(), number("b"), number("c", n=5))
    worse = number(value=0.1)
    assert code(old, results(worse, number("c", n=6))) == 3
    assert code(old, results(worse, number("c", n=5))) == 4
    assert code(old, results(worse, number("b"), number("c", n=5))) == 1


def test_the_environment_is_told_but_not_judged():
    old = Results("digits", "a", {"torch": "2.11"}, (number(),))
    found = compare(old, dataclasses.replace(old, environment={"torch": "2.15"}))
    assert found.exit_code() == 0
    assert "environment: torch 2.11 -> 2.15" in to_text(found)


# --- properties

METRICS = st.sampled_from([definition.pattern.replace("*", "0.5") for definition in DEFINITIONS])


@st.composite
def records(draw):
    metric = draw(METRICS)
    definition = definition_of(metric)
    low, high = max(definition.low, -1e6), min(definition.high, 1e6)
    cell, seed = draw(st.sampled_from("abc")), draw(st.integers(0, 4))
    protocol = draw(st.sampled_from([{}, {"guidance_scale": 3}, {"nfe": 35}]))
    if draw(st.booleans()):
        return not_applicable(cell, "m", seed, metric, "no", protocol=protocol)
    n, stderr = draw(st.integers(1, 9)), draw(st.none() | st.floats(0, 10))
    return number(cell, seed, metric, draw(st.floats(low, high)), n, stderr, **protocol)


TABLES = st.lists(records(), max_size=12, unique_by=lambda record: record.identity).map(lambda found: results(*found))


@settings(deadline=None, max_examples=50)
@given(TABLES)
def test_a_table_compared_with_itself_is_the_same(same):
    found = compare(same, same)
    assert found.exit_code(strict=True) == 0
    assert not found.problems
    assert sum(len(c.seeds) for c in found.changes) == sum(record.status == "ok" for record in same.records)


@settings(deadline=None, max_examples=50)
@given(TABLES, TABLES)
def test_any_two_tables_get_a_verdict_in_every_format(old, new):
    found = compare(old, new)
    assert found.exit_code() in (0, 1, 3, 4)
    assert found == compare(results(*old.records[::-1]), results(*new.records[::-1]))
    assert to_text(found)
    assert to_markdown(found)
    assert json.loads(to_json(found))["exit_code"] == found.exit_code()
