"""Experiments of the papers: every file is read, its cells are there, and the page lists it."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from benchmark import run
from benchmark.errors import InputError
from benchmark.results.definitions import definition_of, family
from benchmark.results.figures import PICTURES
from benchmark.suite.cells import CONFIGS
from benchmark.suite.experiments import Selection, experiments, load_experiment, read_experiment
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.suite import load_suite, selected

PAGE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text(encoding="utf-8")
OF_PAPERS = [f"{paper}{n}" for paper, count in {"a": 10, "c": 10, "d": 5, "e": 9}.items() for n in range(1, count + 1)]


@pytest.mark.parametrize("name", experiments())
def test_every_cell_of_an_experiment_is_one_of_its_suite(name):
    experiment = read_experiment(name)
    for data in experiment.data:
        suite, cells = load_experiment(experiment, data)
        assert set(cells) <= suite.cells.keys()
        assert len(cells) == len(set(cells))
        asked = {cell for cell in cells if suite.cells[cell].config is not None}
        assert all(set(experiment.ask) <= set(suite.cells[cell].ask) for cell in asked)
        others = load_suite(data, experiment.data[data].budget).cells
        assert all(suite.cells[cell].ask == others[cell].ask for cell in suite.cells.keys() & others.keys() - asked)


@pytest.mark.parametrize("name", experiments())
def test_the_metrics_and_figures_of_an_experiment_are_defined(name):
    experiment = read_experiment(name)
    for metric in experiment.metrics:
        assert family(metric) if metric.endswith("=*") else definition_of(metric)
    assert set(experiment.figures) <= PICTURES.keys()
    assert experiment.source
    assert experiment.paper
    assert experiment.expect


def test_cells_of_an_experiment_are_those_of_the_suite_so_that_finished_work_is_recognised():
    experiment = read_experiment("experiments/a3")
    suite, cells = load_experiment(experiment, "digits")
    whole = selected(load_suite("digits", "full"), cells)
    assert (suite.name, suite.protocol, suite.reference) == (whole.name, whole.protocol, whole.reference)
    assert {n: dataclasses.replace(cell, ask=whole.cells[n].ask) for n, cell in suite.cells.items()} == whole.cells


def test_the_page_lists_every_experiment_of_the_papers_as_a_file_or_with_the_reason_why_not():
    rows = dict(re.findall(r"^\| `(\w\d+)` \| (.*) \|$", PAGE, re.MULTILINE))
    absent = dict(re.findall(r"^- `(\w\d+)`: (.+)", PAGE, re.MULTILINE))
    there = {name.partition("/")[2]: read_experiment(name) for name in experiments()}
    assert rows.keys() == there.keys()
    assert sorted([*rows, *absent]) == sorted(OF_PAPERS)
    for name, experiment in there.items():
        assert rows[name] == f"{experiment.source} | {experiment.paper} | {', '.join(experiment.data)}"


def test_the_file_on_the_page_is_the_one_that_ships():
    (text,) = re.findall(r"```yaml\n# configs/suites/(\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert text[1] == (CONFIGS / "suites" / text[0]).read_text()


def test_every_question_that_not_all_are_asked_belongs_to_an_experiment():
    asked = {question for name in experiments() for question in read_experiment(name).ask}
    assert asked == {kind for kind, question in QUESTIONS.items() if not question.always}


def test_the_page_of_suites_has_the_keys_of_a_selection():
    part = PAGE.partition("## A file")[2]
    assert set(re.findall(r"^\| `data: (\w+)` \|", part, re.MULTILINE)) == {
        f.name for f in dataclasses.fields(Selection)
    }


def test_experiments_are_listed_a_line_each(capsys):
    assert run.main(["--suite", "experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == experiments()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiments/a1"], "experiments/a1 needs --data NAME; there are: digits, mnist"),
        (["experiments/a1", "--data", "moons"], "experiments/a1 has no cells on 'moons'; --data can be: digits, mnist"),
        (["experiments/z1"], "no experiment named 'experiments/z1'"),
        (["digits", "--data", "digits"], "--data is for experiments"),
        (["experiments/a1", "--data", "digits", "--only", "cdm"], "--only: no cell 'cdm' in suite digits-full"),
        (["experiments/a1", "--data", "digits", "--budget", "huge"], "digits.yaml: no budget 'huge'"),
    ],
)
def test_what_there_is_not_is_told_in_one_line(words, told, capsys):
    assert run.main(["--suite", *words]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1
    assert len(error) < 400


GOOD = {"source": "(a)", "paper": "p", "expect": "e", "metrics": ["f1"], "data": {"digits": {"cells": ["cdm"]}}}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """An experiment from other content, loaded on the digits."""

    def load(**changes):
        folder = tmp_path / "suites" / "experiments"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a1.yaml").write_text(yaml.safe_dump({**GOOD, **changes}))
        monkeypatch.setattr("benchmark.suite.experiments.CONFIGS", tmp_path)
        return load_experiment(read_experiment("experiments/a1"), "digits")

    return load


def on_digits(**part):
    return {"data": {"digits": {"cells": ["cdm"], **part}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": ["f1"]}, "experiments/a1.yaml: unknown key 'metric'; did you mean metrics?"),
        ({"paper": 3}, "experiments/a1.yaml: paper must be text, got 3"),
        ({"figures": "samples"}, "experiments/a1.yaml: figures must be a list of names, got 'samples'"),
        ({"ask": ["classify"]}, "experiments/a1.yaml: ask: must be distinct ones of alignment"),
        ({"paper": 1000 * [0]}, "experiments/a1.yaml: paper must be text, got [0, 0, 0, 0, 0, 0, 0"),
        ({"data": {}}, "experiments/a1.yaml: data: expected keys and values, got {}"),
        ({"data": {3: {"cells": ["cdm"]}}}, "experiments/a1.yaml: data: a suite's name must be text, got 3"),
        ({"data": {"digits": {"budget": "full"}}}, "experiments/a1.yaml: data: digits: cells must name one cell"),
        (on_digits(cells=[]), "experiments/a1.yaml: data: digits: cells must name one cell"),
        (on_digits(cells="cdm"), "experiments/a1.yaml: data: digits: cells must be a list, got 'cdm'"),
        (on_digits(cells=["cdn"]), "experiments/a1.yaml: data: digits: 'cdn' is no cell of suite digits"),
        (on_digits(cels=["cdm"]), "experiments/a1.yaml: data: digits: unknown key 'cels'"),
        (on_digits(add={"cdm": {"config": "digits/cdm.yaml"}}), "digits.yaml: 'cdm' is a cell of the suite already"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_its_name(written, changes, told):
    with pytest.raises(InputError) as refused:
        written(**changes)
    assert str(refused.value).startswith(told)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": ["accuracy/claen"]}, "metrics: unknown metric 'accuracy/claen'; did you mean 'accuracy/clean'?"),
        ({"metrics": ["acuracy/t=*"]}, "metrics: unknown family 'acuracy/t=*'; did you mean 'accuracy/t=*'?"),
        ({"figures": ["sample"]}, "figures: unknown figure 'sample'; did you mean 'samples'?"),
    ],
)
def test_unknown_metrics_and_figures_are_refused_before_the_work(written, changes, told, tmp_path, capsys):
    written(**changes)
    assert run.main(["--suite", "experiments/a1", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr() == ("", f"error: experiments/a1.yaml: {told}\n")
    assert not (tmp_path / "run").exists()


def test_an_experiment_of_ones_own_may_have_any_name(written, tmp_path):
    written()
    for name in ("a10", "mine", "a2-wide"):
        (tmp_path / "suites" / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(GOOD))
    assert experiments() == [f"experiments/{name}" for name in ("a1", "a10", "a2-wide", "mine")]
    assert read_experiment("experiments/mine").metrics == ["f1"]


def test_added_cells_stand_beside_those_of_the_suite(written):
    add = {"wide": {"config": "digits/cdm.yaml", "set": {"trainer.max_steps": 3}}}
    suite, cells = written(**on_digits(cells=["wide", "cdm"], add=add))
    assert cells == ["wide", "cdm"]
    assert suite.cells["wide"].config == str(CONFIGS / "digits" / "cdm.yaml")
