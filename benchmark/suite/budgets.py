"""Budgets of a suite: which of its cells, and changes of its protocol and of their settings."""

import dataclasses
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened
from benchmark.suite.cells import Cell, beside
from benchmark.suite.fields import build, check_keys
from benchmark.system.yaml_files import mapping, optional_mapping, read_yaml

PAPER = "paper"
"""Name of the budget that a suite's file and configurations state."""


@dataclass(frozen=True)
class Overrides:
    """Settings that a budget changes in some cells.

    Cells are chosen by ``configs`` or by ``cells``; without either, all methods are: cells with a configuration
    that are no floors, which a budget has no need to shorten, but for those of the configurations ``without``.

    Attributes:
        set: Overrides of the configuration, by dotted key.
        parts: YAML files whose settings are put below a dotted key, before ``set``.
        configs: Names of configuration files, without folder and suffix.
        cells: Names of cells, or patterns such as ``cg_sc_*``.
        guidance_scales: Scales that replace those of the cells.
        without: Names of configuration files that a change of all methods leaves out: those with nothing to train.
    """

    set: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    configs: list[str] | None = None
    cells: list[str] | None = None
    guidance_scales: list[float] | None = None
    without: list[str] = field(default_factory=list)

    def concern(self, cell: Cell) -> bool:
        """Tell whether they change a cell."""
        if cell.config is None:
            return False
        stem = Path(cell.config).stem
        if self.configs is self.cells is None:
            return not cell.floor and stem not in self.without
        return stem in (self.configs or ()) or any(_matches(cell, name) for name in self.cells or ())

    def on(self, cell: Cell) -> Cell:
        """The cell with these settings."""
        scales = cell.guidance_scales if self.guidance_scales is None else self.guidance_scales
        return dataclasses.replace(cell, set={**cell.set, **self.set}, guidance_scales=scales)


def added_cells(raw: dict[str, Any], name: str, file: str) -> dict[str, Any]:
    """Cells that a budget has beside those of its suite, as its YAML states them.

    Args:
        raw: The whole suite file.
        name: Name of the budget.
        file: Name of the suite file, for messages.

    Raises:
        InputError: If the budget or its ``cells`` are no mapping, or a cell is given twice.
    """
    where = f"{file}: budget {name}"
    budgets = {} if name == PAPER else optional_mapping(raw, "budgets", file)
    cells = optional_mapping(mapping(budgets[name], where), "cells", where) if name in budgets else {}
    twice = sorted(map(str, {*cells} & {*optional_mapping(raw, "cells", file)}))
    if twice:
        raise InputError(f"{where}: cells: {twice[0]!r} is a cell of the suite already; change it by overrides")
    return cells


def kept_cells(raw: dict[str, Any], name: str, file: str, cells: dict[str, Cell]) -> list[str] | None:
    """Cells that a budget carries out, with all that they need, as its ``only`` names them; None for every cell.

    Args:
        raw: The whole suite file.
        name: Name of the budget, which the file has.
        file: Name of the suite file, for messages.
        cells: All cells, those that the budget adds among them, by name.

    Raises:
        InputError: If ``only`` is no list, or holds a name or pattern of no cell.
    """
    patterns = None if name == PAPER else raw["budgets"][name].get("only")
    if patterns is None:
        return None
    where = f"{file}: budget {name}: only"
    if not isinstance(patterns, list):
        raise InputError(f"{where}: must be a list, got {shortened(patterns)}")
    for pattern in map(str, patterns):
        if not any(_matches(cell, pattern) for cell in cells.values()):
            raise InputError(f"{where}: {shortened(pattern)} is no cell")
    return [cell.name for cell in cells.values() if any(_matches(cell, str(pattern)) for pattern in patterns)]


def read_budget(
    raw: dict[str, Any], name: str, file: Path, cells: dict[str, Cell]
) -> tuple[dict[str, Any], list[Overrides]]:
    """Changes of the protocol and of cells, later ones over earlier ones.

    Args:
        raw: The whole suite file.
        name: Name of the budget.
        file: Path of the suite file.
        cells: All cells, those that the budget adds among them, by name.

    Raises:
        InputError: Naming file, key and remedy.
    """
    if name == PAPER:
        return {}, []
    budgets = optional_mapping(raw, "budgets", file.name)
    if name not in budgets:
        raise InputError(f"{file.name}: no budget {name!r}; there are: {', '.join([PAPER, *budgets])}")
    where = f"{file.name}: budget {name}"
    own = mapping(budgets[name], where)
    parts = [(where, own, file.parent)]
    if "include" in own:
        included = beside(str(own["include"]), file.parent, where)
        parts.insert(0, (included.name, read_yaml(included), included.parent))
    protocol: dict[str, Any] = {}
    overrides: list[Overrides] = []
    for place, part, folder in parts:
        check_keys(part, {"protocol", "overrides", *(["include", "cells", "only"] if part is own else [])}, place)
        protocol |= optional_mapping(part, "protocol", place)
        overrides += _overrides(part.get("overrides") or [], cells, place, folder)
    return protocol, overrides


def _overrides(raw: Any, cells: dict[str, Cell], where: str, folder: Path) -> list[Overrides]:
    """Overrides from their YAML, the settings of ``parts`` among ``set``; files lie in ``folder`` or below configs."""
    if not isinstance(raw, list):
        raise InputError(f"{where}: overrides must be a list, got {raw!r}")
    found = []
    for number, spec in enumerate(raw):
        place = f"{where}: overrides {number}"
        change = build(Overrides, spec, place)
        for name in change.cells or ():
            if not any(_matches(cell, name) for cell in cells.values() if cell.config is not None):
                raise InputError(f"{place}: {name!r} is no cell with a config")
        of_parts = {
            f"{key}.{inner}": value
            for key, file in change.parts.items()
            for inner, value in read_yaml(beside(file, folder, f"{place}: parts")).items()
        }
        found.append(dataclasses.replace(change, set={**of_parts, **change.set}))
    return found


def _matches(cell: Cell, pattern: str) -> bool:
    return fnmatchcase(cell.name, pattern)
