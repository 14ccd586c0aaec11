"""Claims of papers as statements that results can be held against: which cells, which metric, which direction."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened, shown
from benchmark.results.definitions import MetricDefinition, definition_of
from benchmark.results.fields import check_keys, text_of
from benchmark.results.paired import DIRECTIONS, Direction
from benchmark.results.published import Published, PublishedNumbers
from benchmark.results.record import canonical
from benchmark.system.values import is_number, is_text
from benchmark.system.yaml_files import mapping, read_yaml

FULL = "-full"
CLAIM = {"source": True, "says": True, "direction": True, "paper": True, "suites": False, "takes": False}
PAIR = {"a": True, "b": True, "metric": True, "where": False}
PAPER = {"table": True, "column": True, "a": True, "b": True}
SIDE = re.compile(r"(?P<cell>[^@\s]+)(?:@(?P<scale>\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Side:
    """Rows of one cell: with a guidance scale where the metric is of samples that have one."""

    cell: str
    scale: float | None
    metric: str

    def __str__(self) -> str:
        return self.cell if self.scale is None else f"{self.cell}@{self.scale:g}"


@dataclass(frozen=True)
class Pair:
    """The two sides of a claim on one suite, and entries of the protocol that both have."""

    a: Side
    b: Side
    where: Mapping[str, Any] = field(default_factory=dict)

    @property
    def definition(self) -> MetricDefinition:
        """Definition of the first side's metric; that of the other has the same unit and direction."""
        return definition_of(self.a.metric)


@dataclass(frozen=True)
class Claim:
    """A claim.

    Attributes:
        name: Its identifier.
        source: Paper, and the table, figure or section in it.
        says: The statement.
        direction: ``better`` if A is better than B, ``equal`` if they are alike within the margin.
        suites: Pair of each suite that can judge it.
        paper: What the paper saw, in words or as its two numbers.
        published: These two numbers, A first; empty if the paper has none.
        takes: What judging it would take where no suite can.
    """

    name: str
    source: str
    says: str
    direction: Direction
    suites: Mapping[str, Pair]
    paper: str
    published: tuple[Published, ...]
    takes: str

    def pair(self, suite: str) -> Pair | None:
        """The pair on a suite; its budget ``full`` has its cells as they are, other budgets change them.

        A name such as ``*-medium`` stands for any suite at that budget.
        """
        names = (suite, suite.removesuffix(FULL), f"*-{suite.rpartition('-')[2]}")
        return next((self.suites[name] for name in names if name in self.suites), None)


def read_claims(path: Path, published: PublishedNumbers) -> list[Claim]:
    """Claims in a file, in its order.

    Raises:
        InputError: If it cannot be used; names the claim, the field and what is wrong.
    """
    raw = check_keys(read_yaml(path), {"claims": True}, str(path))
    claims = mapping(raw["claims"], f"{path}: claims")
    return [_claim(str(name), item, published, f"{path}: {shown(name, 60)}") for name, item in claims.items()]


def _claim(name: str, item: Any, published: PublishedNumbers, where: str) -> Claim:
    raw = check_keys(mapping(item, where), CLAIM, where)
    if raw["direction"] not in DIRECTIONS:
        raise InputError(f"{where}: direction: expected {' or '.join(DIRECTIONS)}, got {shortened(raw['direction'])}")
    suites = mapping(raw["suites"], f"{where}: suites") if "suites" in raw else {}
    takes = text_of(raw, "takes", where) if "takes" in raw else ""
    if not suites and not takes:
        raise InputError(f"{where}: needs `suites` with cells, or `takes` with what judging it would take")
    paper, numbers = _paper(raw, published, where)
    return Claim(
        name,
        text_of(raw, "source", where),
        text_of(raw, "says", where),
        raw["direction"],
        {str(suite): _pair(pair, f"{where}: suites: {shown(suite, 60)}") for suite, pair in suites.items()},
        paper,
        numbers,
        takes,
    )


def _paper(raw: dict[str, Any], published: PublishedNumbers, where: str) -> tuple[str, tuple[Published, ...]]:
    if not isinstance(raw["paper"], dict):
        return text_of(raw, "paper", where), ()
    place = check_keys(raw["paper"], PAPER, f"{where}: paper")
    texts = {name: text_of(place, name, f"{where}: paper") for name in PAPER}
    a, b = (published.at(texts["table"], texts[side], texts["column"]) for side in ("a", "b"))
    unit = " %" if a.printed.endswith(" %") else ""
    return f"{a.printed.removesuffix(' %')} v {b.printed.removesuffix(' %')}{unit} ({a.column})", (a, b)


def _pair(item: Any, where: str) -> Pair:
    raw = check_keys(mapping(item, where), PAIR, where)
    metrics = raw["metric"] if isinstance(raw["metric"], list) else [raw["metric"]] * 2
    if len(metrics) != 2:
        raise InputError(f"{where}: metric: expected one name, or one for a and one for b, got {shortened(metrics)}")
    a, b = (_side(raw[side], metric, f"{where}: {side}") for side, metric in zip("ab", metrics, strict=True))
    alike = [(d.unit, d.higher_is_better, d.ratio, d.target) for d in map(definition_of, (a.metric, b.metric))]
    if alike[0] != alike[1]:
        raise InputError(f"{where}: {a.metric} and {b.metric} cannot be compared")
    entries = mapping(raw["where"], f"{where}: where") if "where" in raw else {}
    for value in entries.values():
        if not (is_text(value) or isinstance(value, bool) or is_number(value)):
            raise InputError(f"{where}: where: expected texts and numbers, got {shortened(value)}")
    return Pair(a, b, {str(name): canonical(value) for name, value in entries.items()})


def _side(text: Any, metric: Any, where: str) -> Side:
    match = SIDE.fullmatch(text) if is_text(text) else None
    if match is None:
        raise InputError(f"{where}: expected CELL or CELL@SCALE, got {shortened(text)}")
    try:
        definition_of(metric if is_text(metric) else shortened(metric))
    except ValueError as error:
        raise InputError(f"{where}: metric: {shown(error, 200)}") from None
    scale = match["scale"]
    return Side(match["cell"], None if scale is None else float(scale), metric)
