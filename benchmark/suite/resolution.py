"""Resolved configurations, kept in ``plan.json`` until something changes that they depend on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.suite.class_paths import ROOT
from benchmark.suite.contents import unchanged
from benchmark.suite.jobs import PLAN, arguments
from benchmark.suite.settings import CONTENT, without
from benchmark.suite.suite import Suite
from benchmark.system.files import digest, digest_file, read_manifest
from benchmark.system.yaml_files import file_named, parse_yaml

READING = ("methods", "datamodules", *(f"benchmark/{part}" for part in ("training", "suite", "system", "errors.py")))
"""Our source by which configurations are read; what comes after does not change them."""


def resolved(suite: Suite, engine: Any, out: Path, dry: bool) -> tuple[str, dict[str, dict[str, Any]]]:
    """Hash of everything that the cells' configurations depend on, and each configuration with all defaults.

    Args:
        suite: The suite.
        engine: Engine that resolves them if the folder holds no valid ones.
        out: Folder of the run.
        dry: Whether nothing will be run; the content of data is then taken from an earlier run in the folder, if valid.
    """
    key, path = configuration_digest(suite, engine.here), out / PLAN
    known = cached_resolution(path, key)
    if known is not None:
        return key, known
    cells = {
        name: arguments(cell, 0, Path(name), {key: Path(other) for key, other in cell.needs.items()})
        for name, cell in suite.cells.items()
        if cell.config is not None
    }
    print(f"reading {len(cells)} configuration{'' if len(cells) == 1 else 's'}", flush=True)  # takes seconds
    found = engine.resolve(cells, dry=dry)
    return key, with_known_contents(found, path) if dry else found


def configuration_digest(suite: Suite, here: bool = True) -> str:
    """Hash of what resolved configurations depend on, except data and files: YAML, overrides and ``READING``.

    Args:
        suite: The suite.
        here: Whether they were checked against the devices of this machine.
    """
    files: dict[str, str] = {}
    for cell in suite.cells.values():
        _add_files([cell.config, *cell.set.values()], Path(), files)
    places = [ROOT / name for name in READING]
    modules = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    sources = {str(p.relative_to(ROOT)): digest_file(p) for p in modules}
    cells = {name: {**asdict(cell), "ask": None} for name, cell in suite.cells.items() if cell.config}
    return digest({"configs": files, "sources": sources, "cells": cells, "here": here})


def _add_files(value: Any, beside: Path, found: dict[str, str]) -> None:
    """Add the sha256 of each YAML file that a value names, and of those that it includes."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _add_files(item, beside, found)
    named = file_named(value, beside)
    if named is not None and str(named) not in found:
        found[str(named)] = digest_file(named)
        _add_files(parse_yaml(named), named, found)


def cached_resolution(path: Path, key: str) -> dict[str, dict[str, Any]] | None:
    """Resolved configurations of an earlier run under the same key; None if data or files have changed since."""
    cached = read_manifest(path) or {}
    found = cached.get("resolved")
    try:
        return found if cached.get("key") == key and unchanged(c[CONTENT] for c in found.values()) else None
    except (AttributeError, KeyError, TypeError):
        return None


def with_known_contents(found: dict[str, dict[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Configurations resolved without data, with the content that an earlier run noted for equal settings, if valid."""
    before = (read_manifest(path) or {}).get("resolved")
    if not isinstance(before, dict):
        return found
    return {name: _with_known_content(config, before.get(name)) for name, config in found.items()}


def _with_known_content(config: dict[str, Any], before: Any) -> dict[str, Any]:
    try:
        alike = without(before, [CONTENT]) == without(config, [CONTENT]) and unchanged([before[CONTENT]])
    except (AttributeError, KeyError, TypeError):
        return config
    return before if alike else config
