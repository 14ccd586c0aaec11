"""Peers' code: installed packages, and checkouts of released code that are imported from their folder."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.errors import one_line, tell

EXTENSIONS = "torch.utils.cpp_extension"
"""Module by which code compiles extensions for GPUs when it is imported; on CPUs it does without them."""
COMPILER = "compiler"
"""Name under which it is noted that extensions of a checkout could not be compiled."""


class Peers:
    """Modules of peers, imported when they are asked for; a lacking one is told once.

    Args:
        folders: Checkouts by their name in ``targets.CHECKOUTS``.
        extensions: Whether checkouts may compile extensions for GPUs.

    Attributes:
        lacking: Reason by name for what could not be imported.
    """

    def __init__(self, folders: dict[str, Path], extensions: bool = False) -> None:
        self.folders, self.extensions, self.lacking = folders, extensions, dict[str, str]()
        self._known: dict[tuple[str, ...], tuple[ModuleType, ...]] = {}

    def package(self, module: str) -> Any:
        """A module of an installed package; None if there is none."""
        try:
            return import_module(module)
        except ImportError as error:
            self.skip(module.partition(".")[0], one_line(error))
            return None

    def checkout(self, name: str, *modules: str) -> tuple[Any, ...] | None:
        """Modules of a checkout; None if there is none.

        They are imported from its folder and taken out of ``sys.modules`` again: two checkouts have modules of one
        name. Extensions for GPUs that they compile when they are imported are left out where they are not wanted, or
        cannot be compiled.
        """
        key = (name, *modules)
        if name not in self.folders:
            self.skip(name, f"no checkout; give --peer {name}=DIR")
            return None
        if key not in self._known:
            try:
                self._known[key] = self._imported(self.folders[name], modules)
            except ImportError as error:
                self.skip(name, one_line(error))
                return None
        return self._known[key]

    def _imported(self, folder: Path, modules: tuple[str, ...]) -> tuple[ModuleType, ...]:
        if self.extensions:
            try:
                with _importing_from(folder):
                    return tuple(import_module(module) for module in modules)
            except (ImportError, OSError, RuntimeError) as error:
                self.skip(COMPILER, f"extensions of {folder.name} are left out: {one_line(error)}")
        with _importing_from(folder), _no_extensions():
            return tuple(import_module(module) for module in modules)

    def skip(self, name: str, reason: str) -> None:
        """Tell once that something is left out, and why."""
        if self.lacking.get(name) is None:
            self.lacking[name] = reason
            tell(f"skipped {name}: {reason}")


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Import modules from a folder before any others, and forget those that came from it."""
    before = dict(sys.modules)
    hidden = {path.stem for path in folder.iterdir()} & sys.modules.keys()
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if folder in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


@contextmanager
def _no_extensions() -> Iterator[None]:
    """Let code that compiles an extension get None in its place."""
    before = sys.modules.get(EXTENSIONS)
    sys.modules[EXTENSIONS] = ModuleType(EXTENSIONS)
    sys.modules[EXTENSIONS].load = lambda *_, **__: None
    try:
        yield
    finally:
        del sys.modules[EXTENSIONS]
        if before is not None:
            sys.modules[EXTENSIONS] = before
