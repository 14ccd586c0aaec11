"""Suite files: which cells to run, what each needs from others, and the protocol they are measured by."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmark.errors import InputError
from benchmark.suite.protocol import REFERENCE, Protocol
from benchmark.system.names import NAME, check_cell_name
from benchmark.system.sample_files import check_samples_at
from benchmark.system.surroundings import absolute
from benchmark.system.yaml_files import mapping, optional_mapping, read_yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PAPER = "paper"
"""The budget that a suite's file and configurations state, before anything is made smaller."""


@dataclass(frozen=True)
class Cell:
    """One row of work: a method on its data, plain images as a floor, or samples that somebody else made.

    Attributes:
        name: Name in tables and folders.
        config: Path of the method's configuration.
        images: Instead of a method, the images of this part as if they were samples.
        samples: Instead of a method, an ``.npz`` file of samples or a folder of image files; see ``given_files``.
        seed: A fixed seed, where the cell must not vary with the suite's seeds.
        trains_with: Configuration keys that get the trained weights of other cells, by cell name.
        samples_with: The same for keys that training does not use.
        set: Overrides of the configuration, by dotted key.
        guidance_scales: Scales to sample at; empty for unconditional samples.
        floor: Whether the row is a floor for comparison rather than a method.
    """

    name: str
    config: str | None = None
    images: Literal["train", "test"] | None = None
    samples: str | None = None
    seed: int | None = None
    trains_with: dict[str, str] = field(default_factory=dict)
    samples_with: dict[str, str] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    guidance_scales: list[float] = field(default_factory=list)
    floor: bool = False

    @property
    def needs(self) -> dict[str, str]:
        """All configuration keys that get trained weights."""
        return {**self.trains_with, **self.samples_with}


@dataclass(frozen=True)
class Overrides:
    """Settings that a budget changes in some cells.

    Cells are chosen by ``configs`` or by ``cells``, or by neither: then all that have a configuration.

    Attributes:
        set: Overrides of the configuration, by dotted key.
        configs: Names of configuration files, without folder and suffix.
        cells: Names of cells.
        guidance_scales: In place of those cells' own.
    """

    set: dict[str, Any] = field(default_factory=dict)
    configs: list[str] | None = None
    cells: list[str] | None = None
    guidance_scales: list[float] | None = None

    def concern(self, cell: Cell) -> bool:
        """Whether they are for a cell."""
        if cell.config is None:
            return False
        if self.configs is self.cells is None:
            return True
        return Path(cell.config).stem in (self.configs or ()) or cell.name in (self.cells or ())

    def on(self, cell: Cell) -> Cell:
        """The cell with these settings."""
        scales = cell.guidance_scales if self.guidance_scales is None else self.guidance_scales
        return dataclasses.replace(cell, set={**cell.set, **self.set}, guidance_scales=scales)


@dataclass(frozen=True)
class Suite:
    """A suite file, at one of its budgets.

    Attributes:
        name: The file's name; at another budget than the papers', followed by a dash and the budget's.
        reference: Cell whose classifier judges samples and gives the features of fidelity.
        protocol: How cells are measured.
        cells: By name, in the order of the table.
        seeds: Seeds to run unless told otherwise.
    """

    name: str
    reference: str
    protocol: Protocol
    cells: dict[str, Cell]
    seeds: list[int]


def suites() -> list[str]:
    """Names of the suites that ship."""
    return sorted(path.stem for path in (CONFIGS / "suites").glob("*.yaml"))


def load_suite(
    name: str, budget: str = PAPER, changes: dict[str, Any] | None = None, rename: str | None = None
) -> Suite:
    """Read and check ``configs/suites/<name>.yaml``, or the suite file at a path that ends in ``.yaml``.

    The configurations of a suite's cells are looked for beside the suite file, then below ``configs``.

    Args:
        name: Name or path.
        budget: ``paper`` for the file as it stands, or one of its ``budgets``.
        changes: Overrides of every cell's configuration, by dotted key.
        rename: Name of the suite in results.

    Raises:
        InputError: Naming file, key and remedy.
    """
    own = name.endswith((".yaml", ".yml"))
    path = absolute(name) if own else CONFIGS / "suites" / f"{name}.yaml"
    if own and not path.is_file():
        raise InputError(f"no suite file at {path}")
    if not NAME.fullmatch(path.stem) or not path.is_file():
        close = difflib.get_close_matches(name, suites(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no suite named {name!r}; {hint}there are: {', '.join(suites())}")
    raw = read_yaml(path)
    _check_keys(raw, {"reference", "protocol", "cells", "seeds", "budgets"}, f"{path.name}")
    protocol = optional_mapping(raw, "protocol", path.name)
    cells = {cell: _cell(cell, spec, path) for cell, spec in mapping(raw.get("cells"), f"{path.name}: cells").items()}
    changed = [Overrides(set=changes)] if changes else []
    if budget != PAPER:
        smaller, overrides = _budget(raw, budget, path, cells)
        protocol, changed = {**protocol, **smaller}, [*overrides, *changed]
    for change in changed:
        cells = {name: change.on(cell) if change.concern(cell) else cell for name, cell in cells.items()}
    suite = Suite(
        name=rename or (path.stem if budget == PAPER else f"{path.stem}-{budget}"),
        reference=str(raw.get("reference")),
        protocol=_build(Protocol, protocol, f"{path.name}: protocol"),
        cells=cells,
        seeds=check_seeds(raw.get("seeds", [0]), f"{path.name}: seeds"),
    )
    _check_protocol(suite.protocol, f"{path.name}: protocol")
    _check_links(suite, path.name)
    return suite


def _budget(
    raw: dict[str, Any], name: str, path: Path, cells: dict[str, Cell]
) -> tuple[dict[str, Any], list[Overrides]]:
    """What a suite file says of a budget: changes of the protocol, and of cells, later ones over earlier ones."""
    budgets = optional_mapping(raw, "budgets", path.name)
    if name not in budgets:
        raise InputError(f"{path.name}: no budget {name!r}; there are: {', '.join([PAPER, *budgets])}")
    where = f"{path.name}: budget {name}"
    own = mapping(budgets[name], where)
    parts = [(where, own)]
    if "include" in own:
        found = [p for p in (path.parent / str(own["include"]), CONFIGS / str(own["include"])) if p.is_file()]
        if not found:
            raise InputError(f"{where}: no file {own['include']} beside the suite file or below configs")
        parts.insert(0, (found[0].name, read_yaml(found[0])))
    protocol: dict[str, Any] = {}
    overrides: list[Overrides] = []
    for place, part in parts:
        _check_keys(part, {"protocol", "overrides", *(["include"] if part is own else [])}, place)
        protocol |= optional_mapping(part, "protocol", place)
        overrides += _overrides(part.get("overrides") or [], cells, place)
    return protocol, overrides


def _overrides(raw: Any, cells: dict[str, Cell], where: str) -> list[Overrides]:
    if not isinstance(raw, list):
        raise InputError(f"{where}: overrides must be a list, got {raw!r}")
    found = []
    for number, spec in enumerate(raw):
        change = _build(Overrides, spec, f"{where}: overrides {number}")
        for name in change.cells or ():
            if name not in cells or cells[name].config is None:
                raise InputError(f"{where}: overrides {number}: {name!r} is no cell with a config")
        found.append(change)
    return found


def _check_keys(raw: dict[str, Any], known: set[str], where: str) -> None:
    for key in raw:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(sorted(known))}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")


def _cell(name: str, spec: Any, file: Path) -> Cell:
    where = f"{file.name}: cell {name}"
    check_cell_name(name, f"{file.name}: cell name")
    cell = _build(Cell, {"name": name, **mapping(spec, where)}, where)
    if [cell.config, cell.images, cell.samples].count(None) != 2:
        raise InputError(f"{where}: give one of config, images and samples")
    if cell.config is None and (cell.needs or cell.set or cell.guidance_scales):
        raise InputError(f"{where}: images and samples take no weights, settings or guidance_scales")
    if cell.samples is not None:
        path = file.parent / cell.samples
        try:
            check_samples_at(path)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        cell = dataclasses.replace(cell, samples=str(path.resolve()))
    if cell.config is not None:
        found = [path for path in (file.parent / cell.config, CONFIGS / cell.config) if path.is_file()]
        if not found:
            raise InputError(f"{where}: no file {cell.config} beside the suite file or below configs")
        cell = dataclasses.replace(cell, config=str(found[0].resolve()))
    return cell


def _build(kind: type, raw: Any, where: str) -> Any:
    """A dataclass from a mapping, each value of the type that its field declares."""
    types = get_type_hints(kind)
    _check_keys(mapping(raw, where) if raw else {}, set(types), where)
    return kind(**{key: _typed(value, types[key], f"{where}: {key}") for key, value in raw.items()})


def _typed(value: Any, kind: Any, where: str) -> Any:
    """``value`` if it is of a type, lists made tuples where the type says so."""
    kinds = get_args(kind) if NoneType in get_args(kind) else (kind,)
    if value is None and NoneType in kinds:
        return None
    base, parts = get_origin(kinds[0]) or kinds[0], get_args(kinds[0])
    if base is Any:
        return value
    if base is dict and isinstance(value, dict):
        return {_typed(k, parts[0], where): _typed(v, parts[1], f"{where}: {k}") for k, v in value.items()}
    if base in (list, tuple) and isinstance(value, list) and (parts[-1] is ... or base is list or len(value) == 2):
        return base(_typed(item, parts[0], where) for item in value)
    fits, expected = {
        bool: (isinstance(value, bool), "true or false"),
        int: (type(value) is int and value >= 0, "an integer >= 0"),
        float: (type(value) in (int, float) and math.isfinite(value), "a number"),
        str: (isinstance(value, str), "text"),
        Literal: (value in parts, " or ".join(map(str, parts))),
        dict: (False, "keys and values"),
        list: (False, "a list"),
        tuple: (False, "a list of numbers" if ... in parts else "a list of two numbers"),
    }[base]
    if not fits:
        raise InputError(f"{where} must be {expected}, got {value!r}")
    return value


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
    """Seeds as a list of distinct integers in 0 .. 2^32 - 1.

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
    order(suite)


def selected(suite: Suite, names: Iterable[str]) -> Suite:
    """A suite of some cells alone, with the reference and all that those need."""
    found: set[str] = set()
    waiting = [suite.reference, *names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += suite.cells[name].needs.values()
    return dataclasses.replace(suite, cells={name: cell for name, cell in suite.cells.items() if name in found})


def order(suite: Suite) -> list[str]:
    """Cells such that each comes after those whose weights it needs.

    Raises:
        InputError: If cells need one another in a circle.
    """
    placed: list[str] = []

    def place(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise InputError(f"suite {suite.name}: cells need one another in a circle: {' -> '.join((*trail, name))}")
        if name not in placed:
            for needed in suite.cells[name].needs.values():
                place(needed, (*trail, name))
            placed.append(name)

    for name in suite.cells:
        place(name, ())
    return placed
