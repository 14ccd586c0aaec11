"""Classes that a configuration may name.

The parser imports the module of a named class, which runs the module's code. So names are checked before the import,
and the class itself must be defined in an allowed module. The parser checks later that it is of the declared type.
"""

import importlib
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from benchmark.errors import InputError

VARIABLE = "DIFFCLASS_ALLOW"
"""Environment variable that allows more modules or packages, separated by commas, for a user's own methods."""
PACKAGES = ("benchmark", "methods", "datamodules")
"""Our packages, whose source counts in keys."""
NAMEABLE = ("methods", "datamodules", "benchmark.training.schedules")
"""Our packages and modules whose classes may be named."""
OTHERS = (
    "torch.optim",
    *(f"lightning.pytorch.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
)
ROOT = Path(__file__).resolve().parents[2]


def allowed() -> list[str]:
    """Modules and packages whose classes may be named.

    Raises:
        InputError: If the environment variable holds anything but names of modules.
    """
    added = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in added:
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise InputError(f"{VARIABLE} takes names of modules, separated by commas, got {name!r}")
    return [*NAMEABLE, *OTHERS, *added]


def enforce() -> None:
    """Make the parser refuse all other names."""
    from jsonargparse import set_parsing_settings  # heavy

    set_parsing_settings(import_path_denylist=["*", "benchmark", "torch", "lightning"], import_path_allowlist=allowed())


def refused(name: str) -> str:
    """Message about a name that is not allowed."""
    return f"class_path {name} is outside the allowed modules ({', '.join(allowed())}); {VARIABLE}=MODULE adds yours"


@cache
def modules_by_class() -> dict[str, list[str]]:
    """Our modules that define a class, by its name; found in their text."""
    found: dict[str, list[str]] = {}
    for file in (file for name in NAMEABLE for file in _files(ROOT.joinpath(*name.split(".")))):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append(module)
    return found


def _files(place: Path) -> list[Path]:
    """Source files of a package or of one module."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def import_named(texts: Iterable[str]) -> None:
    """Import our modules whose classes are named without a module: the parser finds loaded classes by their name."""
    for text in texts:
        if re.fullmatch(r"[A-Z]\w*", text):
            for module in modules_by_class().get(text, ()):
                importlib.import_module(module)
