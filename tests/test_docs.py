"""The documents say what is so: their suites are read, and their keys are those that the code takes."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from benchmark.results.claims import read_claims
from benchmark.results.published import PublishedNumbers
from benchmark.suite.budgets import Overrides
from benchmark.suite.cells import CONFIGS, USES, Cell
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import load_suite

SUITES = (Path(__file__).parents[1] / "docs/suites.md").read_text(encoding="utf-8")
FILES = [text for text in re.findall(r"```yaml\n(.*?)```", SUITES, re.DOTALL) if text.startswith("reference:")]
OTHERS = [text for text in re.findall(r"```yaml\n(.*?)```", SUITES, re.DOTALL) if text not in FILES]


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_a_suite_of_the_page_is_read_at_each_of_its_budgets(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    for budget in ("paper", *yaml.safe_load(text).get("budgets", {})):
        suite = load_suite(str(tmp_path / "mine.yaml"), budget)
        assert suite.reference == "judge"
        assert not any("{" in name for name in suite.cells)


def test_what_the_page_says_of_a_configuration_stands_in_it():
    (text,) = OTHERS
    name = re.match(r"# (\S+)\n", text)[1]
    assert yaml.safe_load(text).items() <= yaml.safe_load((CONFIGS / name).read_text()).items()


def part(heading):
    return re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", SUITES, re.DOTALL | re.MULTILINE)[1]


def keys(heading):
    """First column of the table below a heading."""
    return re.findall(r"^\| `(\w+)` \|", part(heading), re.MULTILINE)


def fields(of):
    return {field.name for field in dataclasses.fields(of)}


def test_the_page_has_every_key_of_a_suite():
    assert set(keys("Cells")) == fields(Cell) - {"name", *USES.values()} | {"needs"}
    assert set(keys("Protocol")) == fields(Protocol)
    assert set(keys("Budgets")) == fields(Overrides)


def test_the_page_has_the_defaults_of_the_protocol():
    told = dict(re.findall(r"^\| `(\w+)` .*\| `?(.*?)`? \|$", part("Protocol"), re.MULTILINE))
    for field in dataclasses.fields(Protocol):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert yaml.safe_load(told[field.name]) == ("all" if default is None else default)


def test_the_claim_of_the_page_is_one_that_is_read(tmp_path):
    text = (Path(__file__).parents[1] / "docs/claims.md").read_text(encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    published = PublishedNumbers(Path(__file__).parents[1] / "results/published.yaml")
    (claim,) = read_claims(tmp_path / "claims.yaml", published)
    assert claim.paper == "0.525 v 0.448 (5 % Acc)"
