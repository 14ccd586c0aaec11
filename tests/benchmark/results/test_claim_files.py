"""The claims and published numbers that ship: each names what exists; and files that break a rule are refused."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import pytest
import yaml

from benchmark.errors import InputError
from benchmark.results.claims import SIDE, read_claims
from benchmark.results.definitions import definition_of
from benchmark.results.published import PublishedNumbers
from benchmark.suite.suite import load_suite

ROOT = Path(__file__).parents[3]
PUBLISHED = PublishedNumbers(ROOT / "results" / "published.yaml")
CLAIMS = read_claims(ROOT / "configs" / "claims.yaml", PUBLISHED)
MEDIUM = ("fashion_mnist-medium", "cifar10-medium")
PAIRS = [
    (claim, name, pair)
    for claim in CLAIMS
    for suite, pair in claim.suites.items()
    for name in (MEDIUM if suite == "*-medium" else (suite,))
]


@cache
def cells_of(suite):
    name, _, budget = suite.partition("-")
    return load_suite(name, budget or "paper").cells


def check_side(suite, cell, scale, metric):
    """A cell is in its suite, and has the scale exactly where its metric is of samples with one."""
    cells = cells_of(suite)
    assert cell in cells
    sampled = definition_of(metric).stage == "features"
    scales = cells[cell].guidance_scales if sampled else []
    assert scale in scales if scales else scale is None


@pytest.mark.parametrize(("claim", "suite", "pair"), PAIRS, ids=[f"{c.name}-{s}" for c, s, _ in PAIRS])
def test_cells_scales_and_metrics_of_a_claim_exist(claim, suite, pair):
    for side in (pair.a, pair.b):
        check_side(suite, side.cell, side.scale, side.metric)
    assert pair.a != pair.b


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_is_told_in_full_and_the_paper_saw_what_it_says(claim):
    assert claim.says.endswith(".")
    assert len(claim.name) <= 32  # fits into a column
    assert claim.source[:3] in ("(a)", "(c)", "(d)", "(e)")
    if claim.published:
        a, b = claim.published
        assert a.source[:3] == claim.source[:3]
        if claim.direction == "better" and a.metric is not None:
            assert (a.value > b.value) == definition_of(a.metric).higher_is_better


def test_digits_can_judge_at_least_25_claims_of_about_35_or_more():
    assert len(CLAIMS) >= 35
    assert sum(any(suite.startswith("digits") for suite in claim.suites) for claim in CLAIMS) >= 25
    assert {claim.source[:3] for claim in CLAIMS} == {"(a)", "(c)", "(d)", "(e)"}


def test_cells_beside_published_numbers_exist():
    named = {(number.suite, number.cell, number.metric) for number in PUBLISHED.numbers if number.cell}
    assert len(named) > 150
    for suite, cell, metric in named:
        match = SIDE.fullmatch(cell)
        check_side(suite, match["cell"], match["scale"] and float(match["scale"]), metric)


def test_published_numbers_are_in_the_unit_of_the_metric():
    for number in PUBLISHED.numbers:
        if number.metric:
            definition = definition_of(number.metric)
            assert definition.low <= number.value <= definition.high
    found = PUBLISHED.at("a-3", "Score-SSL", "MNIST")
    assert (found.value, found.printed) == (pytest.approx(0.991), "99.1±0.2 %")
    assert PUBLISHED.at("d-1", "CG-SC-all", "100 % iFID").cell == "cg_sc_100@1"
    beside = PUBLISHED.beside("cifar10")
    assert [number.value for number in beside["cdm", "nll"]] == [3.38, 3.38, 3.38]


# Files of others

CLAIM = {"source": "s", "says": "A is better.", "direction": "better", "paper": "a picture"}
PAIR = {"a": "x@1", "b": "y@1", "metric": "fd"}
TABLE = {"source": "s", "setting": "t", "differs": "u", "columns": [{"heading": "h"}], "rows": {"r": [1]}}


def claims(**change):
    return {"claims": {"one": {**CLAIM, "suites": {"digits": PAIR}, **change}}}


def pair(**change):
    return claims(suites={"digits": {**PAIR, **change}})


BAD_CLAIMS = {
    "a list": ([1], "expected keys and values"),
    "no claims": ({"claim": {}}, "did you mean 'claims'?"),
    "nothing claimed": ({"claims": {}}, "expected keys and values"),
    "a text for a claim": ({"claims": {"one": "x"}}, "one: expected keys and values"),
    "a number for a name": ({"claims": {1: {}}}, "1: expected keys and values"),
    "an unknown key": (claims(sources="s"), "unknown key 'sources'; did you mean 'source'?"),
    "a key that YAML takes for true": (claims(**{"takes": "x"}) | {True: 1}, "unknown key True"),
    "no statement": ({"claims": {"one": {"source": "s"}}}, "one: says is missing"),
    "an empty statement": (claims(says=" "), "says: expected a text"),
    "another direction": (claims(direction="worse"), "expected better or equal, got 'worse'"),
    "neither cells nor what it takes": ({"claims": {"one": CLAIM}}, "needs `suites`"),
    "no pair": (claims(suites={"digits": None}), "digits: expected keys and values"),
    "half a pair": (claims(suites={"digits": {"a": "x", "metric": "fd"}}), "b is missing"),
    "a number for a cell": (pair(a=3), "a: expected CELL or CELL@SCALE, got 3"),
    "a scale that is none": (pair(a="x@one"), "expected CELL or CELL@SCALE, got 'x@one'"),
    "an unknown metric": (pair(metric="fdd"), "did you mean 'fd'?"),
    "three metrics": (pair(metric=["fd", "fd", "fd"]), "expected one name, or one for a and one for b"),
    "metrics that differ in direction": (pair(metric=["fd", "is"]), "fd and is cannot be compared"),
    "metrics that are lists": (pair(metric=[["fd"], "fd"]), "unknown metric"),
    "a list in a protocol": (pair(where={"sigma": [1]}), "where: expected texts and numbers"),
    "a number for the paper": (claims(paper=3), "paper: expected a text, got 3"),
    "half a place": (claims(paper={"table": "a-1"}), "column is missing"),
    "an unknown place": (claims(paper={"table": "a-1", "column": "x", "a": "y", "b": "z"}), "no number at a-1, y, x"),
}
BAD_TABLES = {
    "a text": ("x", "expected keys and values"),
    "no columns": ({**TABLE, "columns": []}, "columns: expected a list"),
    "a column of nothing": ({**TABLE, "columns": [3]}, "columns[0]: expected keys and values"),
    "an unknown metric": ({**TABLE, "columns": [{"heading": "h", "metric": "fdd"}]}, "did you mean 'fd'?"),
    "half a percentage": ({**TABLE, "columns": [{"heading": "h", "percent": 0.5}]}, "percent: expected true or false"),
    "too few values": ({**TABLE, "rows": {"r": []}}, "r: expected 1 values"),
    "a value that is none": ({**TABLE, "rows": {"r": ["many"]}}, "r: expected a number"),
    "a value of no end": ({**TABLE, "rows": {"r": [float("inf")]}}, "r: expected a number"),
    "a cell of no row": ({**TABLE, "cells": {"q": "x"}}, "cells: no row 'q'"),
    "too many cells": ({**TABLE, "cells": {"r": ["x", "y"]}}, "r: expected 1 names, got 2"),
}


@pytest.mark.parametrize(("content", "told"), BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_claims_that_cannot_be_used_are_refused(tmp_path, content, told):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as refused:
        read_claims(tmp_path / "claims.yaml", PUBLISHED)
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(("content", "told"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_published_numbers_that_cannot_be_used_are_refused(tmp_path, content, told):
    (tmp_path / "published.yaml").write_text(yaml.safe_dump({"t": content}))
    with pytest.raises(InputError) as refused:
        PublishedNumbers(tmp_path / "published.yaml")
    assert told in str(refused.value)


@pytest.mark.parametrize("seed", range(40))
def test_files_with_spoilt_bytes_are_read_or_refused(tmp_path, seed):
    random = Random(seed)
    for name, read in (("claims", lambda path: read_claims(path, PUBLISHED)), ("published", PublishedNumbers)):
        folder = "configs" if name == "claims" else "results"
        content = bytearray((ROOT / folder / f"{name}.yaml").read_bytes()[:3000])
        for _ in range(random.randint(1, 4)):
            content[random.randrange(len(content))] = random.randrange(256)
        (tmp_path / "spoilt.yaml").write_bytes(content)
        with suppress(InputError):  # the only error that a command tells on one line
            read(tmp_path / "spoilt.yaml")
