"""Who may import whom: the rooms of the repository and their doors."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from benchmark.suite.resolution import READING

ROOT = Path(__file__).parents[1]
ROOMS = ("methods", "datamodules", "benchmark")
FILES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {
    "system": (),
    "suite": ("system",),
    "results": ("system",),
    "metrics": ("system",),
    "training": ("suite", "system"),
    "answers": ("metrics", "suite", "system"),
    "records": ("metrics", "results", "suite", "system"),
    "cost": ("training", "metrics", "results", "suite", "system"),
    "execute": ("cost", "records", "answers", "training", "metrics", "results", "suite", "system"),
}
"""Rooms of the benchmark, each with those that it may import; all may import what lies under the doors."""
UNDER_THE_DOORS = ("errors", "screen")
DOORS = ("run", "evaluate", "status", "compare", "report", "claims")
"""Commands that start without heavy packages."""
WEIGHTS = "methods.weight_files"
"""The reader of files of weights, which all rooms but that of the data use."""
DRAWS = "methods.philox.*"
"""The generator of draws on a device, which noise and data share."""
HEAVY = {"torch", "torchvision", "torchmetrics", "torch_fidelity", "timm", "lightning", "sklearn"}


def names(node: ast.AST, package: str) -> Iterator[str]:
    """Modules that an import statement may load; ``from a import b`` names both ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join(package.split(".")[: -node.level + 1 or None]) if node.level else ""
        module = ".".join(part for part in (base, node.module) if part)
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: no bodies of functions, none for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import(child)


@cache
def imports(path: Path, lazy: bool = True) -> frozenset[str]:
    """Everything that a file imports, or what it does when it is imported itself."""
    tree = ast.parse((ROOT / path).read_text())
    package = ".".join(path.parent.parts)
    return frozenset(name for node in (ast.walk(tree) if lazy else at_import(tree)) for name in names(node, package))


def file_of(module: str) -> Path | None:
    stem = Path(*module.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if (ROOT / p).is_file()), None)


def of_ours(path: Path) -> set[str]:
    """Our modules and the constants of our packages that a file imports; a class of a module counts as the module."""
    ours = {name for name in imports(path) if name.split(".")[0] in ROOMS}
    return {name for name in ours if not (file_of(name) is None and file_of(name.rpartition(".")[0]) in MODULES)}


MODULES = {path for path in FILES if path.name != "__init__.py"}


def foreign(path: Path) -> set[str]:
    """Packages of others that a file imports, without the standard library."""
    tops = {name.split(".")[0] for name in imports(path)}
    return tops - set(ROOMS) - set(sys.stdlib_module_names)


def below(*parts: str) -> list[Path]:
    return [path for path in FILES if path.parts[: len(parts)] == parts]


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=str)


def assert_only(found: set[str], *allowed: str) -> None:
    """Each name is allowed itself or lies below a name that is allowed with ``.*``."""
    wrong = {
        name
        for name in found
        if name not in allowed and not any(name == a[:-2] or name.startswith(a[:-1]) for a in allowed if a[-1] == "*")
    }
    assert not wrong


@every(below("methods", "diffusion"))
def test_diffusion_is_mathematics_in_torch(path):
    assert_only(of_ours(path), "methods", "methods.UNLABELED", "methods.diffusion.*", WEIGHTS, DRAWS)
    assert_only(foreign(path), "torch", "jsonargparse")


@every(below("methods", "networks"))
def test_networks_are_torch_and_know_no_diffusion(path):
    assert_only(of_ours(path), "methods", "methods.UNLABELED", "methods.networks.*", WEIGHTS)
    further = {"external.py": ["timm"], "weak_and_strong.py": ["torchvision"]}.get(path.name, [])
    assert_only(foreign(path), "torch", "jsonargparse", "einops", *further)


@every([path for room in ("diffusion", "networks") for path in below("methods", room)])
def test_only_argument_types_are_taken_from_the_parser(path):
    assert_only({n for n in imports(path) if n.split(".")[0] == "jsonargparse"}, "jsonargparse.typing.*")


@every([path for path in below("methods") if path.parts[1] not in ("diffusion", "networks", "base.py")])
def test_a_method_knows_its_base_and_its_parts_but_no_sibling(path):
    own = ".".join(path.with_suffix("").parts)
    bases = ("methods.base.*", "methods.untrained.*", "methods.composed.*", "methods.terms.*")
    parts = ("methods.diffusion.*", "methods.networks.*")
    assert_only(of_ours(path), "methods", "methods.UNLABELED", "methods.baselines", own, *bases, *parts)


def test_the_base_of_the_methods_knows_no_network_and_no_method():
    assert_only(
        of_ours(Path("methods/base.py")), "methods", "methods.UNLABELED", "methods.terms.*", "methods.diffusion.*"
    )


@every(below("datamodules"))
def test_data_knows_no_method(path):
    assert_only(of_ours(path), "methods", "methods.UNLABELED", "datamodules.*", DRAWS)


@every([path for path in below("benchmark") if path.parts[1] != "speed"])
def test_the_benchmark_knows_methods_and_data_by_their_bases(path):
    bases = ("methods", "methods.UNLABELED", "methods.base.*", WEIGHTS, "datamodules", "datamodules.base.*")
    assert_only(of_ours(path), "benchmark.*", *bases, "datamodules.image_files")  # opens files with care


@pytest.mark.parametrize("package", ["timm", "torch_fidelity", "torchvision"])
def test_a_heavy_package_is_imported_in_one_file_of_a_package(package):
    users = [path for path in FILES if package in foreign(path)]
    assert len({path.parts[0] for path in users}) == len(users), users


def loaded(path: Path, seen: set[Path]) -> set[str]:
    """Packages of others that importing a file of ours loads, through our own files."""
    seen.add(path)
    found = set()
    for name in imports(path, lazy=False):
        top = name.split(".")[0]
        if top not in ROOMS:
            found.add(top)
        prefixes = [name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)]
        for ours in {file_of(prefix) for prefix in prefixes if top in ROOMS} - {None} - seen:
            found |= loaded(ours, seen)
    return found


@every([path for room in MAY_IMPORT for path in below("benchmark", room) if path.name != "__main__.py"])  # a door
def test_a_room_imports_its_own_files_and_those_of_lower_rooms(path):
    room = path.parts[1]
    allowed = [f"benchmark.{name}.*" for name in (room, *MAY_IMPORT[room])]
    ours = {name for name in of_ours(path) if name.split(".")[0] == "benchmark"} - {"benchmark"}
    assert_only(ours, *allowed, *(f"benchmark.{name}" for name in UNDER_THE_DOORS))


def test_the_key_of_configurations_holds_the_source_that_reads_them():
    rooms = {f"benchmark/{room}" for room in ("training", *MAY_IMPORT["training"])}
    assert set(READING) == {"methods", "datamodules", "benchmark/errors.py", *rooms}  # and a screen changes none


def needed(path: Path) -> set[str]:
    """Modules that a file imports, in functions too, but not those for type checkers alone."""
    tree, package = ast.parse((ROOT / path).read_text()), ".".join(path.parent.parts)
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    return {name for node in ast.walk(tree) if node not in typed for name in names(node, package)}


@pytest.mark.parametrize("package", ROOMS)
def test_no_files_import_one_another_in_a_circle(package):
    files = [path for path in below(package) if path in MODULES]
    arrows = {path: {file_of(name) for name in needed(path)} & set(files) - {path} for path in files}
    assert len(list(TopologicalSorter(arrows).static_order())) == len(files)


def test_every_folder_of_the_benchmark_is_a_room():
    folders = {path.parts[1] for path in below("benchmark") if len(path.parts) > 2}
    assert folders == {*MAY_IMPORT, "speed"}


LIGHT = [
    *(Path("benchmark", f"{door}.py") for door in DOORS),
    *below("benchmark", "suite"),
    *below("benchmark", "results"),
]


@every(LIGHT)
def test_commands_plans_and_tables_start_without_heavy_packages(path):
    assert not loaded(path, set()) & HEAVY
