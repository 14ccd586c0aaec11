"""Experiments of the papers: named selections of suites' cells, with cells and questions of their own."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from benchmark.errors import InputError, shortened, shown
from benchmark.suite.budgets import PAPER
from benchmark.suite.cells import CONFIGS, check_asked
from benchmark.suite.fields import build, check_keys
from benchmark.suite.suite import Suite, load_suite, selected
from benchmark.system.yaml_files import mapping, read_yaml

EXPERIMENTS = "experiments"
"""First part of an experiment's name, as in ``experiments/a1``; folder of their files, and of their tables in a run."""


@dataclass(frozen=True)
class Selection:
    """Cells of one suite that carry an experiment out.

    Attributes:
        cells: Names of cells, or patterns such as ``cg_*``, in the order of the tables.
        budget: Budget of the suite.
        add: Cells beside those of the suite, in the grammar of suite files.
    """

    cells: list[str]
    budget: str = PAPER
    add: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        name: ``experiments/<id>``.
        source: Paper and place.
        paper: Description of the paper's experiment.
        expect: Expected outcome, by the paper.
        metrics: Metrics to look at, or families such as ``accuracy/t=*``.
        figures: Figures beside the curves of families, see ``results.answer_pictures``.
        ask: Questions to its cells beside those that all methods are asked.
        data: Cells by name of the suite.
    """

    name: str
    source: str
    paper: str
    expect: str
    metrics: list[str]
    figures: list[str]
    ask: list[str]
    data: dict[str, Selection]

    @property
    def line(self) -> str:
        """Name, source, data sets and description, on one line."""
        return f"{self.name}  {self.source}: {self.paper} [{', '.join(self.data)}]"


def experiments() -> list[str]:
    """Names of all experiments, by paper and number."""
    ids = [path.stem for path in (CONFIGS / "suites" / EXPERIMENTS).glob("*.yaml")]
    return [f"{EXPERIMENTS}/{name}" for name in sorted(ids, key=_place)]


def _place(name: str) -> tuple[str, int]:
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def read_experiment(name: str) -> Experiment:
    """Read ``configs/suites/experiments/<id>.yaml``.

    Args:
        name: ``experiments/<id>``.

    Raises:
        InputError: If there is no such file, or it says something else.
    """
    known = experiments()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        ids = ", ".join(other.rpartition("/")[2] for other in known)
        raise InputError(f"no experiment named {shown(name, 60)!r}; {hint}there are {EXPERIMENTS}/ followed by: {ids}")
    path = CONFIGS / "suites" / f"{name}.yaml"
    raw, where = read_yaml(path), f"{name}.yaml"
    check_keys(raw, {"source", "paper", "expect", "metrics", "figures", "ask", "data"}, where)
    texts = {key: raw.get(key) for key in ("source", "paper", "expect")}
    lists = {key: raw.get(key, []) for key in ("metrics", "figures", "ask")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{where}: {key} must be text, got {shortened(value)}")
    for key, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{where}: {key} must be a list of names, got {shortened(value)}")
    check_asked(lists["ask"], f"{where}: ask")
    data = {suite: _selection(suite, part, where) for suite, part in mapping(raw.get("data"), f"{where}: data").items()}
    return Experiment(name, **{key: " ".join(text.split()) for key, text in texts.items()}, **lists, data=data)


def _selection(suite: Any, part: Any, where: str) -> Selection:
    if not isinstance(suite, str):
        raise InputError(f"{where}: data: a suite's name must be text, got {shortened(suite)}; put quotes around it")
    place = f"{where}: data: {shown(suite, 60)}"
    if not mapping(part, place).get("cells"):
        raise InputError(f"{place}: cells must name one cell at least")
    return build(Selection, part, place)


def load_experiment(
    experiment: Experiment,
    data: str | None,
    budget: str = PAPER,
    changes: dict[str, Any] | None = None,
    rename: str | None = None,
) -> tuple[Suite, list[str]]:
    """The part of a suite that an experiment needs, under the suite's own name, and the experiment's cells in it.

    Args:
        experiment: The experiment.
        data: Name of the suite; may be None if the experiment has one alone.
        budget: Budget in place of the experiment's own, unless ``paper``.
        changes: See ``load_suite``.
        rename: Likewise.

    Raises:
        InputError: If the experiment has no cells for this data, or its cells are none of the suite.
    """
    there = ", ".join(experiment.data)
    if data is None and len(experiment.data) > 1:
        raise InputError(f"{experiment.name} needs --data NAME; there are: {there}")
    name = data or next(iter(experiment.data))
    if name not in experiment.data:
        raise InputError(f"{experiment.name} has no cells on {shown(name, 60)!r}; --data can be: {there}")
    part = experiment.data[name]
    suite = load_suite(name, part.budget if budget == PAPER else budget, changes, rename, part.add)
    chosen: dict[str, None] = {}
    for pattern in part.cells:
        found = [cell for cell in suite.cells if fnmatchcase(cell, pattern)]
        if not found:
            raise InputError(
                f"{experiment.name}.yaml: data: {name}: {shortened(pattern)} is no cell of suite {suite.name}"
            )
        chosen.update(dict.fromkeys(found))
    cells = {
        name: dataclasses.replace(cell, ask=list(dict.fromkeys([*cell.ask, *experiment.ask])))
        if name in chosen and cell.config is not None
        else cell
        for name, cell in suite.cells.items()
    }
    return selected(dataclasses.replace(suite, cells=cells), chosen), list(chosen)
