"""Which classes a configuration may name. To name one imports its module, and that runs the module's code.

A name is looked at before anything is imported, and what it leads to has to be defined in an allowed module too. That
a class is also of the kind that its key declares is checked once it is there.
"""

import importlib
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from benchmark.errors import InputError

VARIABLE = "DIFFCLASS_ALLOW"
"""Environment variable of modules or packages to allow besides, separated by commas: a user's own methods."""
PACKAGES = ("benchmark", "methods", "datamodules")
"""Our packages: their source counts in keys."""
NAMEABLE = ("methods", "datamodules", "benchmark.training.schedules")
"""Packages and modules of ours whose classes may be named."""
OTHERS = (
    "torch.optim",
    *(f"lightning.pytorch.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
)
ROOT = Path(__file__).resolve().parents[2]


def allowed() -> list[str]:
    """Modules and packages whose classes may be named.

    Raises:
        InputError: If the environment variable holds something else than names of modules.
    """
    added = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in added:
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise InputError(f"{VARIABLE} takes names of modules, separated by commas, got {name!r}")
    return [*NAMEABLE, *OTHERS, *added]


def enforce() -> None:
    """Have the parser refuse all other names."""
    from jsonargparse import set_parsing_settings  # heavy

    set_parsing_settings(import_path_denylist=["*", "benchmark", "torch", "lightning"], import_path_allowlist=allowed())


def refused(name: str) -> str:
    """What to say of a name that is not allowed."""
    return f"class_path {name} is outside the allowed modules ({', '.join(allowed())}); {VARIABLE}=MODULE adds yours"


@cache
def modules_by_class() -> dict[str, list[str]]:
    """Modules of ours that define a class of a name, found in their text."""
    found: dict[str, list[str]] = {}
    for file in (file for name in NAMEABLE for file in _files(ROOT.joinpath(*name.split(".")))):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append(module)
    return found


def _files(place: Path) -> list[Path]:
    """Of a package or of one module."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def import_named(texts: Iterable[str]) -> None:
    """Import modules of ours whose classes are named without their module: the parser knows those that are loaded."""
    for text in texts:
        if re.fullmatch(r"[A-Z]\w*", text):
            for module in modules_by_class().get(text, ()):
                importlib.import_module(module)
