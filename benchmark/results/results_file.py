"""Results files: canonical JSON, written and checked."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, one_line, shortened
from benchmark.results.definitions import suggestion
from benchmark.results.record import Record, Results
from benchmark.system.files import LARGEST_JSON, parse_json, write_text

SCHEMA = 1


def write_results(path: Path, results: Results) -> None:
    """Write canonical JSON: records sorted by cell, metric, protocol and seed, keys sorted, numbers unrounded.

    Each record has its own line, so that differences of files show records.
    """
    about = {"schema": SCHEMA, "suite": results.suite, "commit": results.commit, "environment": results.environment}
    head = "".join(f"{json.dumps(key)}: {_canonical(value)},\n" for key, value in sorted(about.items()))
    records = ",\n".join(_canonical(asdict(record)) for record in results.sorted_records)
    write_text(path, f'{{{head}"records": [\n{records}\n]}}\n')


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def read_results(path: Path) -> Results:
    """Read and check a results file.

    Raises:
        InputError: If the file cannot be read or breaks a rule; one line with file, record, field and what would work.
    """
    content = _read_object(Path(path))
    try:
        if content.get("schema", SCHEMA) != SCHEMA or isinstance(content.get("schema"), bool):
            raise ValueError(
                f"schema: this version reads {SCHEMA}, got {shortened(content['schema'])}; run the suite again"
            )
        _check_keys(content, ("schema", "suite", "commit", "environment", "records"), "")
        if not isinstance(content["records"], list):
            raise ValueError(f"records: need a list, got {shortened(content['records'])}")
        records = tuple(_read_record(item, f"records[{index}]") for index, item in enumerate(content["records"]))
        return Results(content["suite"], content["commit"], content["environment"], records)
    except ValueError as error:
        raise InputError(f"{path}: {one_line(error)}") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # may be a pipe
            found = file.read(LARGEST_JSON + 1)
        if len(found) > LARGEST_JSON:
            raise InputError(f"{path}: has more than {LARGEST_JSON >> 20} MiB; name the results.json of a run")
        content = parse_json(found, _unique)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the suite first or correct the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the results.json in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; need the results.json of a run") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {one_line(error)}; run the suite again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: need a JSON object with records, got {shortened(content)}")
    return content


def _read_record(item: Any, place: str) -> Record:
    if not isinstance(item, dict):
        raise ValueError(f"{place}: need an object, got {shortened(item)}")
    _check_keys(item, tuple(field.name for field in fields(Record)), f"{place}.")
    try:
        return Record(**item)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None


def _check_keys(item: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in item:
        if name not in known:
            raise ValueError(f"{place}{shortened(name)}: unknown field{suggestion(name, known)}")
    for name in known:
        if name not in item:
            raise ValueError(f"{place}{name}: missing; add it (null where there is none)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {shortened(max(names, key=names.count))} occurs twice in one object")
    return content
