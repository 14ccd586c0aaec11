"""Suite files: the cells to run, their needs, and the protocol by which they are measured."""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError
from typing import Any

from benchmark.errors import InputError
from benchmark.suite.budgets import PAPER, Overrides, added_cells, kept_cells, read_budget
from benchmark.suite.cells import CONFIGS, Cell, read_cells
from benchmark.suite.fields import build, check_keys
from benchmark.suite.graph import closure, order
from benchmark.suite.needs import with_denoisers
from benchmark.suite.protocol import REFERENCE, Protocol
from benchmark.system.names import NAME
from benchmark.system.surroundings import absolute
from benchmark.system.yaml_files import YAML, mapping, optional_mapping, read_yaml


@dataclass(frozen=True)
class Suite:
    """A suite file, at one of its budgets.

    Attributes:
        name: Name of the file, followed by a dash and the budget unless that is ``paper``.
        reference: Cell whose classifier judges samples and gives the features of fidelity.
        protocol: How cells are measured.
        cells: Cells by name, in the order of the table.
        seeds: Seeds to run by default.
    """

    name: str
    reference: str
    protocol: Protocol
    cells: dict[str, Cell]
    seeds: list[int]

    @property
    def needs(self) -> dict[str, list[str]]:
        """Cells whose weights each cell needs."""
        return {name: [*cell.needs.values()] for name, cell in self.cells.items()}


def suites() -> list[str]:
    """Names of the suites that ship."""
    return sorted(path.stem for path in (CONFIGS / "suites").glob("*.yaml"))


def suite_of(results_name: str) -> tuple[str, str] | None:
    """Suite and budget that results carry as their name, ``SUITE`` or ``SUITE-BUDGET``, if that suite ships."""
    name, _, budget = results_name.rpartition("-")
    if results_name in suites():
        return results_name, PAPER
    return (name, budget) if name in suites() else None


def words_of(results_name: str) -> str:
    """Options by which a run is asked for the suite that results name."""
    suite, budget = suite_of(results_name) or (results_name, PAPER)
    return f"--suite {suite}" + ("" if budget == PAPER else f" --budget {budget}")


def cells_and_floors(results_name: str) -> tuple[list[str], set[str]]:
    """Cells in order, and floors, of the suite that results name; none if it does not ship."""
    named = suite_of(results_name)
    try:
        cells = {} if named is None else load_suite(*named).cells
    except InputError:  # a budget of that name there is none
        cells = {}
    return [*cells], {name for name, cell in cells.items() if cell.floor}


def load_suite(
    name: str,
    budget: str = PAPER,
    changes: dict[str, Any] | None = None,
    rename: str | None = None,
    more: dict[str, Any] | None = None,
) -> Suite:
    """Read and check ``configs/suites/<name>.yaml``, or the suite file at a path that ends in ``.yaml``.

    Configurations of cells are searched beside the suite file, then below ``configs``.

    Args:
        name: Name or path.
        budget: ``paper`` for the file as it stands, or one of its ``budgets``.
        changes: Overrides of every cell's configuration, by dotted key.
        rename: Name of the suite in results.
        more: Cells beside those of the file, in the file's grammar.

    Raises:
        InputError: Naming file, key and remedy.
    """
    by_path = name.endswith(YAML)
    path = absolute(name) if by_path else CONFIGS / "suites" / f"{name}.yaml"
    if by_path and not path.is_file():
        raise InputError(f"no suite file at {path}")
    if not NAME.fullmatch(path.stem) or not path.is_file():
        close = difflib.get_close_matches(name, suites(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no suite named {name!r}; {hint}there are: {', '.join(suites())}")
    raw = read_yaml(path)
    check_keys(raw, {"reference", "protocol", "cells", "seeds", "budgets"}, path.name)
    own = mapping(raw.get("cells"), f"{path.name}: cells")
    added = added_cells(raw, budget, path.name)
    cells = read_cells({**own, **added, **_new(more or {}, {*own, *added}, path.name)}, path)
    smaller, overrides = read_budget(raw, budget, path, cells)
    kept = kept_cells(raw, budget, path.name, cells)
    for change in [*overrides, Overrides(set=changes or {}, cells=["*"])]:
        cells = {name: change.on(cell) if change.concern(cell) else cell for name, cell in cells.items()}
    protocol = {**optional_mapping(raw, "protocol", path.name), **smaller}
    suite = Suite(
        name=rename or (path.stem if budget == PAPER else f"{path.stem}-{budget}"),
        reference=str(raw.get("reference")),
        protocol=build(Protocol, protocol, f"{path.name}: protocol"),
        cells=cells,
        seeds=check_seeds(raw.get("seeds", [0]), f"{path.name}: seeds"),
    )
    _check_protocol(suite.protocol, f"{path.name}: protocol")
    _check_links(suite, path.name)
    suite = dataclasses.replace(suite, cells=with_denoisers(cells, path.name))
    return suite if kept is None else selected(suite, [*kept, *(more or {})])


def _new(cells: dict[str, Any], known: set[str], where: str) -> dict[str, Any]:
    """Cells whose names are not taken."""
    twice = sorted(known & {*cells})
    if twice:
        raise InputError(f"{where}: {twice[0]!r} is a cell of the suite already; it cannot be added")
    return cells


def _check_protocol(protocol: Protocol, where: str) -> None:
    counts = ("samples", "noisy_draws", "levels", "batch", "neighbours", "test_images", "real_images")
    for key in (*counts, "neighbour_images"):
        if getattr(protocol, key) is not None and getattr(protocol, key) < 1:
            raise InputError(f"{where}: {key} must be at least 1, got {getattr(protocol, key)}")
    if protocol.neighbours >= protocol.samples:
        raise InputError(f"{where}: samples must exceed neighbours = {protocol.neighbours}, got {protocol.samples}")
    if not 0 <= protocol.middle[0] < protocol.middle[1]:
        raise InputError(f"{where}: middle must be two rising bounds, got {list(protocol.middle)}")
    if REFERENCE not in protocol.features or len(set(protocol.features)) < len(protocol.features):
        raise InputError(f"{where}: features must be distinct and hold {REFERENCE}, got {list(protocol.features)}")
    if any(not 0 < t <= 1 for t in protocol.denoise_times):
        raise InputError(f"{where}: denoise_times must lie in (0, 1], got {list(protocol.denoise_times)}")


def check_seeds(seeds: Any, where: str) -> list[int]:
    """Check that seeds are a list of distinct integers from 0 to 2^32 - 1, and return them.

    Raises:
        InputError: If they are anything else.
    """
    valid = isinstance(seeds, list) and seeds and all(type(s) is int and 0 <= s < 2**32 for s in seeds)
    if not valid or len(set(seeds)) != len(seeds):
        raise InputError(f"{where}: seeds must be distinct integers from 0 to 2^32 - 1, got {seeds!r}")
    return seeds


def _check_links(suite: Suite, file: str) -> None:
    if suite.reference not in suite.cells or suite.cells[suite.reference].config is None:
        raise InputError(f"{file}: reference must name a cell with a config, got {suite.reference!r}")
    for cell in suite.cells.values():
        scales = [f"{scale:g}" for scale in cell.guidance_scales]
        if any(scale < 0 for scale in cell.guidance_scales) or len(set(scales)) < len(scales):
            raise InputError(
                f"{file}: cell {cell.name}: guidance_scales must be distinct numbers >= 0, got {cell.guidance_scales}"
            )
        for key, needed in cell.needs.items():
            if needed not in suite.cells or suite.cells[needed].config is None:
                raise InputError(f"{file}: cell {cell.name}: {key} needs {needed!r}, which is no cell with a config")
    try:
        order(suite.needs)
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise InputError(f"{file}: cells need one another in a circle: {circle}") from None


def selected(suite: Suite, names: Iterable[str]) -> Suite:
    """Suite of the named cells, the reference, and all cells that those need."""
    kept = closure(suite.needs, [suite.reference, *names])
    return dataclasses.replace(suite, cells={name: cell for name, cell in suite.cells.items() if name in kept})
