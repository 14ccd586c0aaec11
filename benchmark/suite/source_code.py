"""Hashes of source: our modules and a user's own that a configuration names, with all that they import."""

import ast
import functools
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shown
from benchmark.suite.class_paths import OTHERS, PACKAGES, ROOT
from benchmark.system.files import digest, digest_file, read_manifest, write_json

WITHOUT_EFFECT = {
    f"benchmark.{name}"
    for name in (
        *("errors", "screen", "suite.class_paths", "suite.protocol", "suite.questions", "suite.settings"),
        *("suite.source_code", "suite.stages", "system.files", "system.lock", "system.machine", "system.memory"),
        *("system.names", "system.surroundings", "system.yaml_files", "training.predict", "training.progress"),
        *("training.sample", "training.saved_config", "training.views"),
    )
}
"""Modules left out of code digests: they cannot change a result."""
INSTALLED = ("site-packages", "dist-packages")
"""Folders of libraries, which belong to the environment; keys do not hold it."""
STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of a syntax tree that hold statements, or clauses with some."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
KEPT = "sources.json"
"""File of a run that keeps readings of source, since parsing takes a second. It may be deleted at any time."""
_RECALLED: dict[str, list[Any]] = {}
"""Readings of an earlier run: imports and meaning of a source file, by the hash of its module's name and content."""
_READINGS: dict[str, list[Any]] = {}
"""Readings of this run, which alone are kept: those of files as they were would pile up."""


def class_paths(config: Any) -> list[str]:
    """Modules of all classes that a configuration names, and of functions of ours or a user's."""
    if isinstance(config, dict):
        own = [config["class_path"].rpartition(".")[0]] if isinstance(config.get("class_path"), str) else []
        return own + [m for key, value in config.items() if key != "class_path" for m in class_paths(value)]
    if isinstance(config, list):
        return [m for value in config for m in class_paths(value)]
    named = config.rpartition(".")[0] if isinstance(config, str) and DOTTED.fullmatch(config) else ""
    return [named] if named and _counts(named) and _located(named) is not None else []


def code_digest(modules: Iterable[str]) -> str:
    """Hash of the source of ``modules`` and of what they import, without comments and layout.

    Libraries do not count: installed packages, the standard library, torch and Lightning.

    Raises:
        InputError: If there is no such module.
    """
    return digest({module: _reading(module)[1] for module in _closure(frozenset(modules))})


def own_code(modules: Iterable[str]) -> dict[str, str]:
    """Hash of the meaning of each file of a user's own source among ``modules`` and what they import.

    Raises:
        InputError: If there is no such module.
    """
    own = (module for module in sorted(_closure(frozenset(modules))) if module.split(".")[0] not in PACKAGES)
    return {str(_source(module)): _reading(module)[1] for module in own}


def still_means(path: Path, meaning: str) -> bool:
    """Tell whether a file, read anew, has the meaning that ``own_code`` gave it."""
    try:
        tree = _parsed(path)
    except (SyntaxError, ValueError):  # being edited
        return False
    return meaning == (digest_file(path) if tree is None else _meaning(tree))


def recall_readings(folder: Path) -> None:
    """Take over the readings of an earlier run in a folder, if the same Python and the same module made them."""
    kept = read_manifest(folder / KEPT) or {}
    if kept.get("reader") == _reader() and isinstance(kept.get("readings"), dict):
        _RECALLED.update({key: value for key, value in kept["readings"].items() if _is_reading(value)})


def keep_readings(folder: Path) -> None:
    """Write the readings of this run into its folder, if it does not hold them."""
    kept = {"reader": _reader(), "readings": dict(sorted(_READINGS.items()))}
    if read_manifest(folder / KEPT) != kept:
        write_json(folder / KEPT, kept)


def _is_reading(value: Any) -> bool:
    match value:
        case [list(names), str()]:
            return all(isinstance(name, str) for name in names)
    return False


@functools.cache
def _reader() -> str:
    return digest([sys.version, digest_file(Path(__file__))])


@functools.cache
def _closure(modules: frozenset[str]) -> frozenset[str]:
    """Modules whose source counts, with those that they import and the packages that hold them."""
    found: set[str] = set()
    queue = [_existing(module) for module in modules if _counts(module)]
    while queue:
        module = queue.pop()
        if module in found or module in WITHOUT_EFFECT or _source(module) is None:
            continue
        found.add(module)
        queue += _imports(module)
    return frozenset(found)


def _existing(module: str) -> str:
    """The module of this name, or the module that holds it if the last part is a class."""
    if _located(module) is not None:
        return module
    holder = module.rpartition(".")[0]
    if holder and _source(holder) is not None and not _is_package(holder):
        return holder
    raise InputError(f"no module {shown(module, 100)} of which the source can be found; is its folder in PYTHONPATH?")


@functools.cache
def _counts(module: str) -> bool:
    """Tell whether a module's top package is ours or a user's own."""
    top = module.split(".")[0]
    if top in PACKAGES:
        return True
    if top in {name.split(".")[0] for name in OTHERS} or top in sys.stdlib_module_names:
        return False
    places = _located(top)
    return places is None or not any(_is_library(place) for place in places)


def _is_library(place: Path) -> bool:
    return any(part in INSTALLED for part in place.parts) or any(folder in place.parents for folder in STANDARD)


def _located(module: str) -> list[Path] | None:
    """A module's file, or its folders if it has no file; None if there is no such module. Nothing is imported."""
    top, *parts = module.split(".")
    if top in PACKAGES:
        path = ROOT.joinpath(top, *parts)
        files = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
        return files[:1] or ([path] if path.is_dir() else None)
    name, folders = top, None
    while True:
        found = (finder.find_spec(name, folders) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
        if not parts:
            return [Path(spec.origin)] if spec.has_location else [Path(folder) for folder in folders]
        if not folders:
            return None
        name = f"{name}.{parts.pop(0)}"


@functools.cache
def _source(module: str) -> Path | None:
    """File of a module; None if there is no such module, or if it is a folder without a file."""
    return next((place for place in _located(module) or () if place.is_file()), None)


def _is_package(module: str) -> bool:
    return _source(module).stem == "__init__"


def _imports(module: str) -> tuple[str, ...]:
    """Modules whose source counts among what a module imports, and the packages that hold it, whose code runs first."""
    return tuple(name for name in _reading(module)[0] if _counts(name))


@functools.cache
def _reading(module: str) -> list[Any]:
    """Names of what a module imports, with the packages that hold it and them; the hash of its meaning."""
    path = _source(module)
    content = digest_file(path)
    key = digest([module, path.name, content])
    found = _RECALLED.get(key)
    if found is None:
        tree = _parsed(path)
        found = [_imported(module, tree), content if tree is None else _meaning(tree)]
    return _READINGS.setdefault(key, found)


def _parsed(path: Path) -> ast.Module | None:
    """Syntax tree of a file; None for a compiled module, which counts by its bytes."""
    return ast.parse(path.read_bytes()) if path.suffix == ".py" else None


def _imported(module: str, tree: ast.Module | None) -> list[str]:
    parts = module.split(".")
    found = [".".join(parts[:n]) for n in range(1, len(parts))]
    for node in _statements(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = parts if _is_package(module) else parts[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            found += [source] + [f"{source}.{alias.name}" for alias in node.names]
    found += [".".join(name.split(".")[:n]) for name in found for n in range(1, name.count(".") + 1)]
    return [name for name in dict.fromkeys(found) if name]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Statements at any depth, with the clauses that hold some; expressions hold none, and are most of a tree."""
    for name in BLOCKS:
        held = getattr(node, name, None)
        for statement in held if isinstance(held, list) else ():
            yield statement
            yield from _statements(statement)


def _meaning(tree: ast.Module) -> str:
    """Hash of a syntax tree without docstrings."""
    for node in (tree, *_statements(tree)):
        for name in BLOCKS:
            held = getattr(node, name, None)
            if isinstance(held, list):
                setattr(node, name, [line for line in held if not _is_text(line)])
    return digest(ast.dump(tree))


def _is_text(line: ast.AST) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
