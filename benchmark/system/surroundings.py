"""Working folder and environment of a command: absolute paths, and variables that are restored."""

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shown
from benchmark.system.values import is_text

FOLDERS = {"--data-root": "DIFFCLASS_DATA", "--weights": "DIFFCLASS_WEIGHTS"}
"""Options that name folders, and the environment variables that pass them to workers."""
PATHS = {"default_root_dir", "save_dir", "root_dir", "dirpath"}
"""Settings of the trainer, its loggers and its callbacks that name folders."""


def working_folder() -> Path:
    """The working folder.

    Raises:
        InputError: If it was deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise InputError("the working folder was deleted; change to another one and start again") from None


def absolute(path: str | Path) -> Path:
    """Absolute path, with ``~`` as the home folder, from the current working folder.

    Libraries change the working folder of the whole process for a while; absolute paths do not depend on it.

    Raises:
        InputError: If the path is relative and the working folder was deleted, or the path is not UTF-8 text, which
            torch and formats of text cannot write.
    """
    path = Path(os.path.expanduser(path))
    path = path if path.is_absolute() else working_folder() / path
    if not is_text(str(path)):
        raise InputError(f"the path {shown(path, 200)} is not UTF-8 text; name another or rename the folder")
    return path


def path_option(text: str) -> Path:
    """Type of an option that names a file or folder: ``absolute``."""
    if not text:
        raise argparse.ArgumentTypeError("expected the path of a file or folder")
    return absolute(text)


def make_paths_absolute(settings: Any) -> None:
    """Make the values of ``PATHS`` in nested settings absolute."""
    if isinstance(settings, list):
        for item in settings:
            make_paths_absolute(item)
    elif isinstance(settings, dict | argparse.Namespace):
        items = settings if isinstance(settings, dict) else vars(settings)
        for name, value in items.items():
            if name in PATHS and isinstance(value, str | Path):
                items[name] = str(absolute(value))
            else:
                make_paths_absolute(value)


def data_folders(options: Any) -> dict[str, str]:
    """Absolute values of the environment variables in ``FOLDERS``, from the options or the environment.

    Raises:
        InputError: If an option names no folder.
    """
    found = {}
    for option, variable in FOLDERS.items():
        folder = getattr(options, option[2:].replace("-", "_"))
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option}: no folder at {folder}")
        folder = folder or os.environ.get(variable)
        if folder:
            found[variable] = str(absolute(folder))
    return found


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block and its child processes, then restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
