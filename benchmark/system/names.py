"""Names of suites, cells and rows, which are also names of folders."""

import re
from typing import Any

from benchmark.errors import InputError, shortened

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
OF_FILES = (".json", ".csv", ".md", ".html", ".npz", "queue")
"""Suffixes of files beside the folders of cells in a run's folder."""
OF_FOLDERS = ("experiments", "stages")
"""Folders beside those of cells."""


def check_cell_name(name: Any, where: str) -> str:
    """Check that a cell's or row's name can be a folder in a run's folder; returns it.

    Raises:
        InputError: If it is invalid.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"{where} must be 1 to 64 letters, digits, dots, dashes or underscores, no dot or dash first, "
            f"got {shortened(name)}"
        )
    if name.lower().endswith(OF_FILES):
        raise InputError(f"{where} must not end in {', '.join(OF_FILES)} as files of a run do, got {name!r}")
    if name.lower() in OF_FOLDERS:
        raise InputError(f"{where} must not be {name}, which is a folder of a run")
    return name
