"""Check that a training writes only to its folder and below."""

from collections.abc import Iterator
from pathlib import Path

from lightning import Trainer

from benchmark.errors import InputError, shortened

FOLDERS = ("dirpath", "exclude_batches_path")
"""Attributes of callbacks and profilers with their output paths."""


def check_confined(trainer: Trainer) -> None:
    """Check that callbacks, loggers and the profiler write to the trainer's folder and below.

    Raises:
        InputError: If one would write elsewhere; names it.
    """
    root = Path(trainer.default_root_dir)
    for part, path in _written(trainer, root):
        if "://" in str(path) or not inside(Path(path).expanduser().absolute(), root):
            raise InputError(
                f"{type(part).__name__} would write to {shortened(str(path))}, outside the training's folder "
                f"{shortened(str(root))}; name a folder in that one, or another by trainer.default_root_dir"
            )


def inside(path: Path, root: Path) -> bool:
    """Tell whether a path leads to ``root`` or below, links followed."""
    return path.resolve().is_relative_to(root.resolve())


def _written(trainer: Trainer, root: Path) -> Iterator[tuple[object, str | Path]]:
    for part in (*trainer.callbacks, trainer.profiler):
        yield from ((part, path) for name in FOLDERS if (path := getattr(part, name, None)))
        if name := getattr(part, "filename", None):
            folder = getattr(part, "dirpath", None)
            yield part, (root if folder is None else Path(folder)) / name
    for logger in trainer.loggers:
        if path := getattr(logger, "log_dir", None) or logger.save_dir:
            yield logger, path
