"""One results file of several: runs of one suite with other seeds or cells, or on other machines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shown
from benchmark.results.record import Identity, Record, Results


def merge(found: Sequence[tuple[Path, Results]]) -> Results:
    """All records of several results of one suite; a number that two of them hold stands once.

    The commits are listed, and of the environment each value that occurs.

    Args:
        found: Each file and what it holds.

    Raises:
        InputError: If suites differ, or two files give one number other values; one line with both files.
    """
    first_path, first = found[0]
    kept: dict[Identity, tuple[Path, Record]] = {}
    for path, results in found:
        if results.suite != first.suite:
            raise InputError(f"{path} is of suite {shown(results.suite)}, {first_path} of {shown(first.suite)}")
        for record in results.records:
            place, known = kept.setdefault(record.identity, (path, record))
            if (known.value, known.status) != (record.value, record.status):
                what = f"{record.metric} of {record.cell} (seed {record.seed})"
                values = f"{_said(known)} in {place}, {_said(record)} in {path}"
                raise InputError(
                    f"{shown(what)} is {values}; both have it: leave one of the two out, or remove that seed from one"
                )
    commits = list(dict.fromkeys(commit for _, results in found for commit in results.commit.split(", ")))
    environments = [results.environment for _, results in found]
    names = dict.fromkeys(name for environment in environments for name in environment)
    environment = {name: _one_or_all([e[name] for e in environments if name in e]) for name in names}
    return Results(first.suite, ", ".join(commits), environment, tuple(record for _, record in kept.values()))


def _said(record: Record) -> str:
    return f"{record.value:.6g}" if record.value is not None else record.status


def _one_or_all(values: list[Any]) -> Any:
    distinct = list({json.dumps(value, sort_keys=True): value for value in values}.values())
    return distinct[0] if len(distinct) == 1 else distinct
