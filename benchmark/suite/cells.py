"""Cells of a suite: read from its file, with sweeps filled in and needs taken from methods' configurations."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.errors import InputError, shown
from benchmark.suite.fields import build, check_keys, typed
from benchmark.suite.questions import QUESTIONS
from benchmark.system.names import check_cell_name
from benchmark.system.sample_files import check_samples_at
from benchmark.system.yaml_files import mapping, optional_mapping, read_yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
USES = {"training": "trains_with", "sampling": "samples_with"}
"""Keys of ``needs`` in a method's configuration, and the fields of a cell that hold what they name."""


@dataclass(frozen=True)
class Cell:
    """One row of work: a method on its data, plain images as a floor, or samples that somebody else made.

    Attributes:
        name: Name in tables and folders.
        config: Path of the method's configuration.
        images: Images of this part, in place of a method's samples.
        samples: ``.npz`` file of samples or folder of image files, in place of a method; see ``given_samples``.
        seed: Fixed seed of a cell that must not vary with the suite's seeds.
        trains_with: Cells whose weights training uses, by the argument of the method that gets them. The method's
            configuration states them under ``needs``; a suite may name other cells, or None for weights of its own.
        samples_with: Cells whose weights sampling alone uses, likewise.
        set: Overrides of the configuration, by dotted key.
        guidance_scales: Scales to sample at; empty for unconditional samples.
        ask: Questions beyond those that all methods are asked; see ``questions``.
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
    ask: list[str] = field(default_factory=list)
    floor: bool = False

    @property
    def needs(self) -> dict[str, str]:
        """Cells whose weights the method gets, by its argument."""
        return {**self.trains_with, **self.samples_with}


def read_cells(raw: dict[str, Any], file: Path) -> dict[str, Cell]:
    """Cells by name, in the order of the file.

    Args:
        raw: Cells and sweeps as the suite file states them.
        file: Path of the suite file.

    Raises:
        InputError: Naming file, cell and key.
    """
    cells: dict[str, Cell] = {}
    for name, spec in _swept(raw, f"{file.name}: cells"):
        if name in cells:
            raise InputError(f"{file.name}: cells: {name!r} is given twice")
        cells[name] = _cell(name, spec, file)
    return cells


def beside(name: str, folder: Path, where: str) -> Path:
    """The file of a name in a folder or else below ``configs``.

    Raises:
        InputError: If neither has it.
    """
    for path in (folder / name, CONFIGS / name):
        if path.is_file():
            return path
    raise InputError(f"{where}: no file {name} beside the suite file or below configs")


def check_asked(questions: Sequence[str], where: str) -> None:
    """Check that questions are distinct ones which not all methods are asked.

    Raises:
        InputError: Naming the first other one.
    """
    known = [kind for kind, question in QUESTIONS.items() if not question.always]
    for question in questions:
        if question not in known or questions.count(question) > 1:
            raise InputError(f"{where}: must be distinct ones of {', '.join(known)}, got {shown(question, 60)}")


def _swept(raw: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Name and settings of each cell, those of sweeps filled in.

    A sweep holds ``cells`` and ``for``: for each variable a list of values, or a mapping of values by name. In the
    names of cells, and of those that they need, ``{variable}`` stands for the name, in their settings for the value; a
    setting that is ``{variable}`` and nothing else takes the value's type.
    """
    for name, spec in raw.items():
        if not isinstance(spec, dict) or "for" not in spec:
            yield name, spec
            continue
        check_keys(spec, {"for", "cells"}, f"{where}: {name}")
        choices = []
        for variable, values in mapping(spec["for"], f"{where}: {name}: for").items():
            if not isinstance(values, dict | list) or not values:
                raise InputError(f"{where}: {name}: for: {variable} must be a list, or values by name, got {values!r}")
            named = values.items() if isinstance(values, dict) else [(value, value) for value in values]
            choices.append([(variable, str(label), value) for label, value in named])
        cells = mapping(spec.get("cells"), f"{where}: {name}: cells")
        for chosen in itertools.product(*choices):
            labels = {variable: label for variable, label, _ in chosen}
            values = {variable: value for variable, _, value in chosen}
            for cell, settings in cells.items():
                filled = _filled_in(settings, values)
                if isinstance(settings, dict) and "needs" in settings:
                    filled["needs"] = _filled_in(settings["needs"], labels)
                yield _filled_in(str(cell), labels), filled


def _filled_in(value: Any, variables: dict[str, Any]) -> Any:
    """A value with ``{variable}`` replaced in all its texts."""
    if isinstance(value, dict):
        return {key: _filled_in(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled_in(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    for name, replacement in variables.items():
        if value == f"{{{name}}}":
            return replacement
        value = value.replace(f"{{{name}}}", str(replacement))
    return value


def _cell(name: Any, spec: Any, file: Path) -> Cell:
    check_cell_name(name, f"{file.name}: cell name")
    where = f"{file.name}: cell {name}"
    given = {key: value for key, value in mapping(spec, where).items() if key != "needs"}
    needs = optional_mapping(spec, "needs", where)
    known = {field.name for field in dataclasses.fields(Cell)} - {"name", *USES.values()}
    check_keys(given, {*known, "needs"}, where)
    cell = build(Cell, {"name": name, **given}, where)
    if [cell.config, cell.images, cell.samples].count(None) != 2:
        raise InputError(f"{where}: give one of config, images and samples")
    if cell.config is None and (needs or cell.set or cell.guidance_scales or cell.ask):
        raise InputError(f"{where}: images and samples take no weights, settings, guidance_scales or questions")
    check_asked(cell.ask, f"{where}: ask")
    if cell.samples is not None:
        path = file.parent / cell.samples
        try:
            check_samples_at(path)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return dataclasses.replace(cell, samples=str(path.resolve()))
    if cell.config is not None:
        config = beside(cell.config, file.parent, where).resolve()
        return dataclasses.replace(cell, config=str(config), **_needs(config, needs, where))
    return cell


def _needs(config: Path, instead: dict[str, Any], where: str) -> dict[str, dict[str, str]]:
    """``trains_with`` and ``samples_with`` of a cell.

    Args:
        config: Configuration of the method, with ``needs: {training: {ARGUMENT: CELL}, sampling: {ARGUMENT: CELL}}``.
        instead: Cells that the suite names in place of those, by argument; None for the file that the configuration
            names.
        where: Name of the cell in messages.
    """
    needs = optional_mapping(read_yaml(config), "needs", config.name)
    check_keys(needs, USES, f"{config.name}: needs")
    stated = {use: optional_mapping(needs, use, f"{config.name}: needs") for use in USES}
    check_keys(instead, {argument for cells in stated.values() for argument in cells}, f"{where}: needs")
    found = {use: {argument: instead.get(argument, cell) for argument, cell in stated[use].items()} for use in USES}
    return {
        USES[use]: {a: typed(cell, str, f"{where}: needs: {a}") for a, cell in cells.items() if cell is not None}
        for use, cells in found.items()
    }
