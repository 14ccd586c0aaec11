"""Denoisers that cells take from other cells: settings and weights."""

import dataclasses
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.suite.cells import Cell
from benchmark.system.yaml_files import YAML, file_named, parse_yaml, read_yaml

PRETRAINED = "methods.diffusion.denoiser.Pretrained"
WEIGHTS = "checkpoint"
"""Argument of a method that takes the file of weights itself; other arguments take a trained denoiser."""


REPLACED = "methods.diffusion.denoiser.Replaced"
"""Set first, it takes away all that a configuration says of a denoiser."""


def forgotten(cell: Cell) -> dict[str, str]:
    """Settings that come before those of ``with_denoisers``, whose classes else keep arguments of the configuration."""
    return {f"model.init_args.{argument}": REPLACED for argument in cell.needs if argument != WEIGHTS}


def weights_key(argument: str) -> str:
    """Dotted key of a configuration that holds the path of the weights which an argument of its method needs."""
    return f"model.init_args.{argument}" + ("" if argument == WEIGHTS else ".init_args.checkpoint")


def with_denoisers(cells: dict[str, Cell], where: str) -> dict[str, Cell]:
    """Cells that set the denoisers which they need as the needed cells set them; the weights follow with the plan.

    Raises:
        InputError: If a needed cell trains no denoiser.
    """
    found = {}
    for name, cell in cells.items():
        denoisers: dict[str, Any] = {}
        for argument, other in cell.needs.items():
            if argument != WEIGHTS:
                denoiser = None if "denoiser" in cells[other].needs else _denoiser(cells[other])
                if isinstance(denoiser, str) and denoiser.endswith(YAML):
                    config = cells[other].config
                    raise InputError(f"{where}: cell {other}: no file {denoiser} beside {config}, which includes it")
                if not isinstance(denoiser, dict):
                    raise InputError(f"{where}: cell {name}: {argument} needs {other!r}, which trains no denoiser")
                denoisers[f"model.init_args.{argument}"] = {
                    "class_path": PRETRAINED,
                    "init_args": {"denoiser": denoiser},
                }
        found[name] = dataclasses.replace(cell, set={**denoisers, **cell.set})
    return found


def _denoiser(cell: Cell) -> Any:
    """The setting ``denoiser`` of a cell's method: its configuration with included files, then its overrides."""
    file = Path(cell.config)
    settings = _included(read_yaml(file), file)
    for key, value in cell.set.items():
        place, (*path, last) = settings, key.split(".")
        for part in path:
            place = _inner(_arguments(place, part), part)
        place, value = _arguments(place, last), _included(value, Path())
        if isinstance(value, str) and isinstance(place.get(last), dict):  # the class alone
            place, last = place[last], "class_path"
        place[last] = value
    return _inner(_inner(settings, "model"), "init_args").get("denoiser")


def _arguments(place: dict[str, Any], key: str) -> dict[str, Any]:
    """Settings that hold a key: the arguments of a class where the key leaves out ``init_args``."""
    own = "class_path" not in place or key in ("class_path", "init_args")
    return place if own else _inner(place, "init_args")


def _inner(place: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key, made where there is none."""
    if not isinstance(place.get(key), dict):
        place[key] = {}
    return place[key]


def _included(value: Any, file: Path, trail: tuple[Path, ...] = ()) -> Any:
    """A value in which the names of YAML files, relative to ``file``, have given place to what those hold."""
    if isinstance(value, dict):
        return {key: _included(item, file, trail) for key, item in value.items()}
    if isinstance(value, list):
        return [_included(item, file, trail) for item in value]
    named = file_named(value, file)
    if named is None or named.resolve() in trail:
        return value
    return _included(parse_yaml(named), named, (*trail, named.resolve()))
