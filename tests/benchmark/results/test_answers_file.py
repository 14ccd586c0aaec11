"""Scores of single test images beside results: written, read back, merged, and refused where they are not theirs."""

from contextlib import suppress

import numpy as np
import pytest
from tables import number, results

from benchmark.errors import InputError
from benchmark.results.answers_file import Answers, Scored, answers_path, merged_answers, read_answers, write_answers

NLL = np.array([0.5, 1.5, 4.0], np.float32)
ROWS = [
    Scored("da", 0, "k0", {"accuracy/clean": np.array([1, 0, 1, 1], bool), "nll": NLL}),
    Scored("da", 1, "k1", {"accuracy/clean": np.array([1, 1, 1, 1], bool)}),
    Scored("images", 0, "k2", {}),
]


@pytest.fixture
def file(tmp_path):
    write_answers(tmp_path / "answers.npz", ROWS)
    return tmp_path / "answers.npz"


def test_scores_are_read_as_they_were_written(file):
    answers = Answers(file)
    assert answers.of("da", 0, "accuracy/clean").tolist() == [1, 0, 1, 1]
    assert answers.of("da", 0, "nll").tolist() == NLL.tolist()  # fewer images than another metric
    assert answers.of("da", 1, "nll") is None
    assert answers.of("images", 0, "accuracy/clean") is None
    assert answers.of("da", 2, "accuracy/clean") is None
    assert answers.of("da", 0, "fd") is None
    assert list(answers.rows) == [("da", 0, "k0"), ("da", 1, "k1"), ("images", 0, "k2")]
    again = file.with_name("again.npz")
    write_answers(again, list(answers.rows.values()))
    assert {name: array.tobytes() for name, array in np.load(again).items()} == {
        name: array.tobytes() for name, array in np.load(file).items()
    }


def test_the_file_lies_beside_its_results(tmp_path):
    assert answers_path(tmp_path / "results.json") == tmp_path / "answers.npz"
    assert answers_path(tmp_path / "digits.json") == tmp_path / "digits.npz"
    assert read_answers(tmp_path / "digits.json") is None


def test_without_scores_there_is_no_file(file):
    write_answers(file, ROWS[2:])
    assert not file.exists()


def test_scores_of_these_results_pass_and_others_are_refused(file):
    good = results(number(value=0.75, n=4), number(seed=1, value=1.0), number(metric="nll", value=2.0), number("other"))
    Answers(file).check(good)
    with pytest.raises(InputError, match=r"accuracy/clean of da \(seed 1\) has mean 1, the results say 0.9"):
        Answers(file).check(results(number(value=0.75), number(seed=1, value=0.9)))


def test_merging_keeps_what_agrees_and_leaves_out_what_differs(file, tmp_path):
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
    other = Scored("da", 1, "of other settings", {"nll": NLL})
    write_answers(tmp_path / "b" / "answers.npz", [ROWS[0], other, Scored("da", 2, "k", {"nll": NLL})])
    found = merged_answers([file.with_name("results.json"), *(tmp_path / name / "results.json" for name in "bc")])
    assert [(row.cell, row.seed) for row in found] == [("da", 0), ("images", 0), ("da", 2)]


def spoilt(**arrays):
    content = {"cells": np.array(["da"]), "seeds": np.array([0]), "keys": np.array(["k"])}
    content |= {"nll": np.array([[1.0, 2.0]])}
    return {name: array for name, array in (content | arrays).items() if array is not None}


BAD = {
    "no cells": (spoilt(cells=None), "holds no array cells"),
    "cells by number": (spoilt(cells=np.array([1])), "cells is int64"),
    "seeds of halves": (spoilt(seeds=np.array([0.5])), "seeds is float64"),
    "a table of keys": (spoilt(keys=np.array([["k"]])), "rows of one length"),
    "two cells, one seed": (spoilt(cells=np.array(["a", "b"])), "rows of one length"),
    "a cell twice": (
        spoilt(cells=np.array(["a", "a"]), seeds=np.array([0, 0]), keys=np.array(["k", "l"])), "stand twice"
    ),
    "an unknown metric": (spoilt(fdd=np.zeros((1, 2))), "did you mean 'fd'?"),
    "a metric of texts": (spoilt(nll=np.array([["x"]])), "nll is <U1"),
    "too many rows": (spoilt(nll=np.zeros((2, 2))), "not one row for each cell and seed"),
    "no rows": (spoilt(nll=np.zeros(2)), "not one row for each cell and seed"),
    "objects": (spoilt(nll=np.array([[{}]], object)), "array of objects"),
    "infinity": (spoilt(nll=np.array([[1.0, np.inf]])), "no numbers"),
    "a gap": (spoilt(nll=np.array([[np.nan, 1.0, 2.0]])), "no numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "told"), BAD.values(), ids=BAD)
def test_a_file_of_another_kind_is_refused(tmp_path, arrays, told):
    np.savez(tmp_path / "answers.npz", **arrays)
    with pytest.raises(InputError, match=r"answers\.npz") as refused:
        Answers(tmp_path / "answers.npz").check(results(number(metric="nll", value=1.5)))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", range(0, 1000, 25))
def test_a_damaged_file_is_read_or_refused(file, place):
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x55
    file.write_bytes(content if place % 2 else content[: place % len(content)])
    with suppress(InputError):  # the only error that a command tells on one line
        answers = Answers(file)
        for metric in ("accuracy/clean", "nll"):
            answers.of("da", 0, metric)
