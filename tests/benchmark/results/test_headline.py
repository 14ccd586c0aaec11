"""Headlines: one line a method, and differences with their intervals."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from tables import number, results, table

from benchmark.results.answers_file import Answers, Scored, write_answers
from benchmark.results.headline import METRICS, differences, lines, to_headline, to_screen
from benchmark.results.record import Results, failed, measured, not_applicable

OURS, THEIRS = (0.81, 0.84, 0.80), (0.78, 0.80, 0.79)


def difference(*arguments):
    """The difference at the largest common guidance scale; None without one."""
    return next(reversed(differences(*arguments)), None)


def two(metric="accuracy/middle", **protocol):
    return [
        number(cell, seed, metric, value, **protocol)
        for cell, values in (("a", OURS), ("b", THEIRS))
        for seed, value in enumerate(values)
    ]


def body(markdown):
    """Texts of a Markdown table, by the first of each line and the heading's first word."""
    header, _, *rows = [[part.strip() for part in line[1:-1].split("|")] for line in markdown.splitlines()]
    return {row[0]: dict(zip((name.split(" ")[0] for name in header), row, strict=True)) for row in rows}


def test_an_interval_is_that_of_a_paired_t_test():
    found = difference(results(*two()), "a", "b", "accuracy/middle")
    expected = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(0.08 / 3)


def test_an_interval_holds_the_error_over_test_images_too(tmp_path):
    """The variances of the mean over seeds and over images add up; the seeds share the images."""
    rng = np.random.default_rng(0)
    scores = {c: np.float32(rng.random((3, 50)) < p) for c, p in (("a", 0.8), ("b", 0.7))}
    write_answers(
        tmp_path / "answers.npz",
        [Scored(c, s, "key", {"accuracy/clean": scores[c][s]}) for c in "ab" for s in range(3)],
    )
    means = results(*(number(c, s, value=float(scores[c][s].mean())) for c in "ab" for s in range(3)))
    found = difference(means, "a", "b", "accuracy/clean", Answers(tmp_path / "answers.npz"))
    gap = scores["a"] - scores["b"]
    parts = [gap.mean(1).var(ddof=1) / 3, gap.mean(0).var(ddof=1) / 50]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 49)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert (found.low, found.high) == pytest.approx((gap.mean() - half, gap.mean() + half), rel=1e-5)


def test_a_verdict_follows_the_interval_and_the_direction_of_the_metric():
    assert difference(results(*two()), "a", "b", "accuracy/middle").verdict == "undecided"
    shifted = [number("c", seed, value=value + 0.15) for seed, value in enumerate(OURS)]
    assert difference(results(*two("accuracy/clean")[3:], *shifted), "c", "b", "accuracy/clean").verdict == "better"
    more = [number("c", seed, "fd", value + 5) for seed, value in enumerate(OURS)]
    assert difference(results(*two("fd"), *more), "c", "b", "fd").verdict == "worse"


def test_one_common_seed_tells_no_difference_and_makes_no_leader():
    pair = results(number("a", value=0.9, stderr=0.03), number("b", value=0.8, stderr=0.04), number("b", 1, value=0.1))
    assert difference(pair, "a", "b", "accuracy/clean") is None
    assert "**" not in to_headline(pair, ["a", "b"])


def test_rows_of_other_labels_do_not_compete():
    few = [number("c", seed, "accuracy/clean", value - 0.1, n_labeled=50) for seed, value in enumerate(OURS)]
    more = [number("d", seed, "accuracy/clean", value - 0.3, n_labeled=50) for seed, value in enumerate(OURS)]
    found = body(to_headline(results(*two("accuracy/clean"), *few, *more)))
    assert {name for name, row in found.items() if row["clean"].startswith("**")} == {"c"}  # a and b are not told apart


def test_a_line_has_the_distance_of_the_network_that_judges_classes():
    judged = number("a", metric="accuracy/generated", value=0.9, feature_network="reference")
    fds = [number("a", metric="fd", value=v, feature_network=n) for n, v in (("lite0", 9.0), ("reference", 1.5))]
    assert body(to_headline(results(judged, *fds), ["a"]))["a"]["fd"] == "1.50"
    unjudged = [number("b", metric="fd", value=v, feature_network=n) for n, v in (("lite0", 9.0), ("reference", 1.5))]
    assert body(to_headline(results(judged, *fds, *unjudged), ["a", "b"]))["b"]["fd"] == "1.50"


def test_leaders_of_a_distance_are_told_apart_by_its_ratio():
    near = [number("a", seed, "fd", value) for seed, value in enumerate((1.0, 2.0, 40.0))]
    far = [number("b", seed, "fd", 1.3 * record.value) for seed, record in enumerate(near)]  # further by .3, .6 and 12
    assert difference(results(*near, *far), "a", "b", "fd").verdict == "undecided"
    found = body(to_headline(results(*near, *far), ["a", "b"]))
    assert [found[name]["fd"].startswith("**") for name in ("a", "b")] == [True, False]


def test_samples_are_compared_at_the_largest_scale_that_both_have():
    low = two("fd", guidance_scale=1)
    high = [number(c, seed, "fd", v, guidance_scale=3) for c, v in (("a", 3.0), ("b", 1.0)) for seed in (0, 1)]
    assert difference(results(*low, *high), "a", "b", "fd").mean == pytest.approx(2.0)
    assert difference(results(*low, high[0]), "a", "b", "fd").mean == pytest.approx(0.08 / 3)


def test_cells_that_were_not_measured_have_no_difference():
    assert difference(results(*two()), "a", "b", "fd") is None
    assert difference(results(*two()), "a", "c", "accuracy/middle") is None


def test_a_line_has_numbers_of_the_cell_and_those_of_its_largest_scale():
    made = results(
        number("a"), number("a", metric="fd", value=2.0, guidance_scale=1),
        number("a", metric="fd", value=0.5, guidance_scale=3),
    )  # fmt: skip
    (line,) = lines(made)
    assert (line.guidance_scale, line.entries["fd"].mean) == (3, 0.5)
    assert line.entries["accuracy/clean"].mean == 0.98


def test_a_headline_marks_floors_kinds_and_what_was_not_measured():
    made = results(
        number("floor", metric="nll", value=2.0, kind="exact"),
        *(number("a", seed, metric="nll", value=1.9 + seed / 50, kind="unnormalised") for seed in range(2)),
        number("a", n_labeled=50),
        not_applicable("b", "m", 0, "nll", "no density"),
        failed("b", "m", 0, "fd", "diverged"),
    )
    found = body(to_headline(made, ["floor", "a", "b"], {"floor"}))
    assert list(found) == ["*floor* (floor)", "a", "b", "largest standard error"]
    assert found["a"]["nll"] == "1.91ᵘ"
    assert found["*floor* (floor)"]["nll"] == "2.00"
    assert (found["a"]["labels"], found["a"]["clean"]) == ("50", ".980")
    assert (found["b"]["nll"], found["b"]["fd"], found["b"]["recall"]) == ("–", "failed", "–")
    assert found["largest standard error"]["nll"] == ".010"
    assert len(found["a"]) == 2 + len(METRICS)


def test_long_headings_leave_the_names_of_cells_their_room():
    metrics = [f"counterfactual/{name}" for name in ("asked", "kept", "distance", "own")]
    records = [measured(c, "m", 0, m, 0.5, n=4) for c in ("joint", "cdm") for m in metrics]
    out = io.StringIO()
    Console(file=out, width=80).print(to_screen(Results("s", "", {}, tuple(records)), ["joint", "cdm"], (), metrics))
    names = [line.split()[0] for line in out.getvalue().splitlines() if ".500" in line]
    assert names == ["joint", "cdm"]


def test_the_table_of_a_terminal_has_six_columns_and_fits_eighty_characters():
    out = io.StringIO()
    screen = to_screen(table(cells=("da", "a_cell_with_a_longer_name")), ["da", "a_cell_with_a_longer_name"], {"da"})
    Console(file=out, width=80).print(screen)
    assert len(screen.columns) == 6
    heading, *rest = out.getvalue().splitlines()
    assert "da (floor)" in out.getvalue()
    assert max(map(len, [heading, *rest])) <= 80


def test_a_difference_is_told_at_each_common_scale_but_that_of_no_guidance():
    scaled = [
        number(cell, seed, "fd", value + scale, guidance_scale=scale)
        for cell, values in (("a", OURS), ("b", THEIRS))
        for seed, value in enumerate(values)
        for scale in (0, 1, 3)
    ]
    alone = [number("a", seed, "fd", 9.0, guidance_scale=10) for seed in range(3)]
    found = differences(results(*scaled, *alone), "a", "b", "fd")
    assert [change.scale for change in found] == [1, 3]
    assert found[0].mean == pytest.approx(found[1].mean)


def test_a_number_of_another_sample_count_states_it():
    some = [number(cell, metric="fd", value=0.2, n=n) for cell, n in (("a", 1000), ("b", 1000), ("images", 360))]
    shown = body(to_headline(results(*some)))
    assert {row["method"]: row["fd"] for row in shown.values()} == {"a": ".200", "b": ".200", "images": ".200 (n=360)"}
