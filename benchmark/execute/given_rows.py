"""Rows of given samples in a run's table: the list of them, and checks of their samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened, shown, tell
from benchmark.suite.jobs import arguments
from benchmark.suite.suite import Suite
from benchmark.system.files import read_json, write_json
from benchmark.system.names import check_cell_name

GIVEN = "given.json"
"""File in a run's folder: paths of the given samples, by row."""


def given_rows(out: Path) -> dict[str, str]:
    """Path of the samples of each given row of a run.

    Raises:
        InputError: If the file is damaged or holds an invalid name.
    """
    path = out / GIVEN
    try:
        rows = read_json(path)
        damaged = not isinstance(rows, dict) or not all(isinstance(value, str) for value in rows.values())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        damaged = True
    if damaged:
        raise InputError(f"{path} is damaged; delete it and give the samples again")
    for row in rows:
        check_cell_name(row, f"{path}: name of a row")
    return rows


def keep_row(out: Path, row: str, samples: Path) -> None:
    """Add samples as a row of a run."""
    write_json(out / GIVEN, {**given_rows(out), row: str(samples)})


def check_row(out: Path, row: str) -> None:
    """Check that a row was given.

    Raises:
        InputError: If there is no such row.
    """
    rows = given_rows(out)
    if row not in rows:
        there = f"there are: {shown(', '.join(rows), 200)}" if rows else "none were given"
        raise InputError(f"no row {shortened(row)} of given samples in {out}; {there}")


def forget_row(out: Path, row: str) -> None:
    """Remove a row; undoes ``keep_row``."""
    write_json(out / GIVEN, {name: path for name, path in given_rows(out).items() if name != row})


def check_given(suite: Suite, engine: Any, samples: Mapping[str, str]) -> None:
    """Check that samples fit the data of a suite's reference, and tell how they were read.

    Args:
        suite: The suite.
        engine: Reads them in a worker process.
        samples: Path of the samples of each row.

    Raises:
        InputError: If they cannot be compared.
    """
    if samples:
        cell = suite.cells[suite.reference]
        needed = {key: Path(other) for key, other in cell.needs.items()}
        for note in engine.ask(_notes, arguments(cell, 0, Path(suite.reference), needed), dict(samples)):
            tell(f"note: {note}")


def _notes(words: tuple[str, ...], samples: dict[str, str]) -> list[str]:
    """Descriptions of how the samples of each row were read."""
    from benchmark.answers.given_samples import given_samples
    from benchmark.training.build import build
    from datamodules.base import stand_ins

    with stand_ins():  # only shape, classes and grey levels are needed
        data = build([*words, "--trainer.logger=false"], here=False).datamodule
    notes = []
    for row, path in samples.items():
        try:
            notes.append(f"row {row}: {given_samples(Path(path), data).told}")
        except InputError as error:
            raise InputError(f"row {row}: {error}") from None
        except MemoryError:
            raise InputError(f"row {row}: not enough memory for the samples at {path}; give fewer") from None
    return notes
