"""Tables: means over seeds, nothing hidden, nothing ranked that was measured otherwise, names that do nothing."""

import csv
import io
import itertools
import re

import pytest
from tables import number, results, twice

from benchmark.results.record import Results, failed, not_applicable
from benchmark.results.results_file import read_results
from benchmark.results.rows import rows
from benchmark.results.tables import to_csv, to_markdown, write_tables


def cells_of(markdown: str, metric: str) -> dict[str, str]:
    """Cell name (with its scale, if the table has one) -> text of one column."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, flags=re.MULTILINE):
        header, _, *body = [[part.strip() for part in line[1:-1].split("|")] for line in block.strip().splitlines()]
        assert all(len(line) == len(header) for line in body)
        column = next((i for i, name in enumerate(header) if name.split(" ")[0].rstrip(",") == metric), None)
        if column is not None:
            scale = header.index("scale") if "scale" in header else None
            found |= {line[0] + (f"@{line[scale]}" if scale and line[scale] else ""): line[column] for line in body}
    return found


def test_mean_and_standard_error_over_seeds_are_those_computed_by_hand():
    table = results(*(number(seed=seed, value=value) for seed, value in enumerate((0.97, 0.98, 0.96))))
    (row,) = rows(table)
    (entry,) = row.entries["accuracy/clean"]
    assert entry.mean == pytest.approx(0.97)
    assert entry.stderr == pytest.approx(0.01 / 3**0.5)  # sd 0.01
    assert (entry.seeds, entry.total, entry.n) == ((0, 1, 2), 3, (360,))
    assert cells_of(to_markdown(table), "accuracy/clean") == {"da": "0.970 ± 0.006"}
    assert "(3 seeds, n=360)" in to_markdown(table)


def test_one_seed_has_no_spread():
    assert cells_of(to_markdown(results(number())), "accuracy/clean") == {"da": "0.980"}
    assert "(1 seed, n=360)" in to_markdown(results(number()))


def test_each_guidance_scale_is_a_row_and_cells_keep_the_order_asked_for():
    table = results(
        number("a"),
        number("b", metric="fd", value=1.0, guidance_scale=3),
        number("b", metric="fd", value=2.0, guidance_scale=1.0),
    )
    assert [(row.cell, row.guidance_scale) for row in rows(table)] == [("a", None), ("b", 1), ("b", 3)]
    assert [row.cell for row in rows(table, ["z", "b"])] == ["z", "b", "b", "a"]
    assert list(cells_of(to_markdown(table), "fd")) == ["a", "b@1", "b@3"]


def test_na_failed_and_missing_are_never_confused():
    table = results(
        number("a"),
        number("a", metric="ece", value=0.18, kind="bound"),
        not_applicable("b", "m", 0, "accuracy/clean", "no classifier"),
        not_applicable("c", "m", 0, "accuracy/clean", "no classifier"),
        failed("b", "m", 0, "ece", ValueError("boom")),
    )
    markdown = to_markdown(table, cells=["a", "b", "c", "d"])
    assert cells_of(markdown, "accuracy/clean") == {"a": "0.980", "b": "n/a [1]", "c": "n/a [1]", "d": "missing"}
    assert cells_of(markdown, "ece") == {"a": "0.180 (bound)", "b": "failed [2]", "c": "missing", "d": "missing"}
    assert "- [1] no classifier\n- [2] ValueError: boom" in markdown


def test_a_column_that_no_row_could_be_asked_for_is_left_out():
    table = results(number("a"), not_applicable("a", "m", 0, "level_ce", "no classifier of noise levels"))
    assert "level_ce" not in to_markdown(table)
    assert "level_ce" in to_markdown(table, ["accuracy/clean", "level_ce"])


def test_one_failed_seed_is_not_hidden_by_the_others():
    table = results(number(seed=0), number(seed=1), failed("da", "m", 2, "accuracy/clean", "boom"))
    assert cells_of(to_markdown(table), "accuracy/clean") == {"da": "failed [1] (1 of 3 seeds)"}


def test_fewer_seeds_or_samples_than_the_other_rows_are_said_in_the_cell():
    table = results(number("a", 0), number("a", 1), number("b", 0), number("c", 0, n=90), number("c", 1, n=90))
    assert cells_of(to_markdown(table), "accuracy/clean") == {
        "a": "0.980 ± 0.000",
        "b": "0.980 (1 seed)",
        "c": "0.980 ± 0.000 (n=90)",
    }


def test_only_rows_measured_alike_are_ranked():
    network = {"feature_network": "digits-net"}
    table = results(
        *twice("best", metric="fd", value=0.2, **network),
        *twice("next", metric="fd", value=0.3, nfe=18, sampler="Heun", **network),
        *twice("other-count", metric="fd", value=0.1, n=50, **network),
        *twice("other-kind", metric="fd", value=0.1, kind="bound", **network),
    )
    fd = cells_of(to_markdown(table), "fd")
    assert fd["best"] == "**0.200 ± 0.000**"
    assert [name for name, text in fd.items() if "**" in text] == ["best"]


def test_each_feature_network_has_a_table_and_the_judge_of_classes_the_first():
    table = results(
        number("a", metric="accuracy/generated", value=0.9, feature_network="reference"),
        *(number("a", metric="fd", value=v, feature_network=n) for n, v in (("reference", 0.2), ("lite0", 0.3))),
        number("a", metric="nn_ratio", value=1.0),
    )
    parts = to_markdown(table).split("### ")[1:]
    assert [part.splitlines()[0] for part in parts] == [
        "Generation by reference (1 seed, n=360)", "Generation by lite0 (1 seed, n=360)"
    ]  # fmt: skip
    assert cells_of("### " + parts[0], "fd") == {"a": "0.200"}
    assert cells_of("### " + parts[1], "fd") == {"a": "0.300"}
    assert "nn_ratio" in parts[0]
    assert "nn_ratio" not in parts[1]


def test_each_kind_of_points_and_noise_level_has_a_table_and_numbers_without_them_the_first():
    markdown = to_markdown(
        results(
            number("a", metric="level_ce", value=0.5),
            *(
                number("a", metric="gradient/mse", value=v, points=points, sigma=sigma, scaling=scaling)
                for v, (points, sigma, scaling) in enumerate(itertools.product(("grid", "noisy"), (1.0, 7.5), "ab"))
            ),
        )
    )
    headings = [line[4:].split(" (")[0] for line in markdown.splitlines() if line.startswith("### ")]
    points = [f"Gradients, {points}, sigma {s}" for points in ("grid", "noisy") for s in ("1", "7.5")]
    assert headings == ["Density and denoising", *points]
    assert "6 (scaling a); 7 (scaling b)" in markdown.split(points[-1])[1]
    assert "gradient" not in markdown.split(points[0])[0]


def test_published_numbers_stand_beside_those_of_their_setting_alone():
    measured = [
        number("denoising_assisted", metric="accuracy/noisy", value=0.56),
        *twice("denoising_assisted", metric="fid", value=3.1, guidance_scale=1, feature_network="inception"),
        *twice("denoising_assisted", metric="fid", value=9.9, guidance_scale=3, feature_network="inception"),
    ]
    tables = to_markdown(results(*measured, suite="cifar10"))
    assert cells_of(tables, "accuracy/noisy") == {"denoising_assisted": "0.560 (paper 57.16 %)"}
    found = {"denoising_assisted@1": "**3.10 ± 0.00** (paper 2.85)", "denoising_assisted@3": "9.90 ± 0.00"}
    assert cells_of(tables, "fid") == found
    assert "paper" not in to_markdown(results(*measured, suite="cifar10-medium"))


def test_a_question_that_some_cells_are_asked_has_a_table_of_these_alone():
    markdown = to_markdown(
        results(
            *(number(cell, metric="fd", value=0.2, guidance_scale=1) for cell in "ab"),
            number("a", metric="counterfactual/asked", value=0.5, guidance_scale=1),
        )
    )
    generation, asked = markdown.split("### ")[1:]
    assert asked.startswith("Counterfactual (1 seed")
    assert cells_of("### " + asked, "counterfactual/asked") == {"a@1": "0.500"}
    assert "counterfactual" not in generation
    assert "missing" not in markdown


def test_a_floor_is_marked_and_never_bold_even_if_it_is_best():
    table = results(
        *twice("copies", metric="fd", value=0.0),
        *twice("a", metric="fd", value=1.0),
        *twice("b", metric="fd", value=2.0),
    )
    fd = cells_of(to_markdown(table, floors={"copies"}), "fd")
    assert fd == {"copies (floor)": "0.000 ± 0.000", "a": "**1.000 ± 0.000**", "b": "2.000 ± 0.000"}


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy/clean", (0.9, 0.8), "a"),
        ("nll", (1.8, 1.9), "a"),
        ("nn_ratio", (0.9, 1.9), "a"),
        ("nn_ratio", (0.0, 1.1), "b"),
        ("cpu_seconds/train", (100, 10), "b"),
    ],
)
def test_bold_follows_the_direction_of_the_metric(metric, values, best):
    table = results(
        *(n for cell, value in zip("ab", values, strict=True) for n in twice(cell, metric=metric, value=value))
    )
    assert [cell for cell, text in cells_of(to_markdown(table), metric).items() if "**" in text] == [best]


@pytest.mark.parametrize("metric", ["level_balance", "nll/lattice", "nll/t=0.2"])
def test_nothing_is_bold_where_no_mass_is_known(metric):
    table = results(number("a", metric=metric, value=-0.1), number("b", metric=metric, value=-5.6))
    assert "| a |" in to_markdown(table)
    assert [text for text in cells_of(to_markdown(table), metric).values() if "**" in text] == []


def test_what_an_interval_does_not_tell_from_the_best_is_bold_too():
    values = {"a": (0.90, 0.92, 0.94), "b": (0.91, 0.915, 0.94), "c": (0.70, 0.72, 0.74), "one": (0.99,)}
    table = results(*(number(cell, seed, value=v) for cell, of in values.items() for seed, v in enumerate(of)))
    bold = {cell for cell, text in cells_of(to_markdown(table), "accuracy/clean").items() if "**" in text}
    assert bold == set()  # the best mean is of one seed, which tells nothing of others
    table = results(*(record for record in table.records if record.cell != "one"))
    bold = {cell for cell, text in cells_of(to_markdown(table), "accuracy/clean").items() if "**" in text}
    assert bold == {"a", "b"}


def test_nothing_is_bold_among_equals_or_alone():
    assert "**0" not in to_markdown(results(number("a"), number("b", value=0.9801)))
    assert "**0" not in to_markdown(results(number("a")))


def test_headings_say_direction_unit_and_what_is_measured_how():
    shared = {"feature_network": "digits-net"}
    table = results(
        number("a", metric="fd", value=1.0, n=1000, sampler="Heun", nfe=35, **shared),
        number("b", metric="fd", value=1.1, n=1000, sampler="DDIM", nfe=25, **shared),
        number("a", metric="nll", value=1.8, kind="estimate", nfe=60),
        number("a", metric="throughput/sample", value=240.0, nfe=35),
        number("a", metric="nn_ratio", value=1.1, n=1000),
    )
    markdown = to_markdown(table)
    assert "| fd ↓ | nn_ratio →1 |" in markdown
    assert "nll ↓, bits/dim |" in markdown
    assert "- feature_network digits-net: fd\n" in markdown
    assert cells_of(markdown, "sampler") == {"a": "Heun", "b": "DDIM"}
    assert cells_of(markdown, "NFE") == {"a": "35", "b": "25"}
    assert cells_of(markdown, "nll")["a"] == "1.800 (estimate, NFE 60)"
    assert cells_of(markdown, "throughput/sample")["a"] == "240.0 (NFE 35)"


def test_two_protocols_of_one_row_stay_apart():
    table = results(number(metric="nll", value=1.8, kind="exact"), number(metric="nll", value=2.4, kind="bound"))
    assert cells_of(to_markdown(table), "nll") == {"da": "2.400 (bound); 1.800 (exact)"}


def test_a_density_without_a_known_mass_is_never_bold():
    rows = (("a", 1, "unnormalised"), ("b", 2, "unnormalised"), ("c", 3, "exact"), ("d", 4, "exact"))
    numbers = [n for cell, value, kind in rows for n in twice(cell, metric="nll", value=value, kind=kind)]
    assert re.findall(r"\*\*(\d\.\d+) ", to_markdown(results(*numbers))) == ["3.000"]


def test_curves_are_left_out_unless_asked_for():
    table = results(number(), number(metric="accuracy/t=0.5", value=0.5), number(metric="accuracy/t=0.25", value=0.7))
    assert "t=" not in to_markdown(table)
    header = to_markdown(table, ["accuracy/t=0.5", "accuracy/t=0.25"])
    assert header.index("t=0.25") < header.index("t=0.5")
    with pytest.raises(ValueError, match="did you mean 'nll'"):
        to_markdown(table, ["nl"])


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "|x", "`x`", "a\nb\n\n# c", "**bold**", "[x](y)", "\\|"])
def test_names_and_reasons_do_nothing_in_markdown(name):
    table = Results(
        name,
        name,
        {},
        (
            number(name, method=name, sampler=name, kind=name, other=name),
            number("a|b", other="y"),
            number("a|b", metric="ece", value=0.18, kind="bound"),
            not_applicable(name, name, 1, "ece", name),
        ),
    )
    markdown = to_markdown(table, floors={name})
    assert "<" not in markdown
    assert "`" not in markdown
    assert "\n#" not in markdown.replace("\n### ", "")
    assert "](" not in markdown
    assert "**bold**: best" in markdown  # ours
    assert markdown.count("**") == 2
    assert len(cells_of(markdown, "ece")) == 2  # every line has as many columns as its heading


def test_csv_has_one_record_a_row_with_raw_numbers(tmp_path):
    table = results(number(value=1 / 3, nfe=18), number("z", metric="level_balance", value=-1.9))
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [float(line["value"]) for line in lines] == [1 / 3, -1.9]  # a negative number is no formula
    assert (lines[0]["protocol"], lines[0]["higher_is_better"], lines[0]["stderr"]) == ('{"nfe": 18}', "true", "")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "＝1"])
def test_csv_texts_never_start_a_formula(name):
    table = results(number(name), not_applicable("b", name, 0, "ece", name))
    lines = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert len(lines) == 3
    assert all(text[:1] not in tuple("=+-@\t\r＝") for line in lines for text in line)
    assert f"'{name.strip()}" in to_csv(table)


def test_three_files_are_written_and_equal_runs_give_equal_bytes(tmp_path):
    records = [number("a", seed) for seed in (0, 1)] + [number("b", metric="fd", value=0.3)]
    for folder, group in (("one", records), ("two", records[::-1])):
        write_tables(tmp_path / folder, results(*group), cells=["b", "a"], floors={"b"})
    names = ["results.csv", "results.json", "results.md"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert len(read_results(tmp_path / "one" / "results.json").records) == 3


def test_a_floor_shows_only_where_something_was_asked_of_it():
    table = results(number("a"), number("a", metric="fd", value=1.0), number("train", metric="fd", value=0.1))
    markdown = to_markdown(table, cells=["train", "a", "lost"], floors={"train", "lost"})
    assert list(cells_of(markdown, "accuracy/clean")) == ["lost (floor)", "a"]
    assert list(cells_of(markdown, "fd")) == ["train (floor)", "lost (floor)", "a"]
