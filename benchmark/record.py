"""One record is one number: what was measured, of which cell, under which protocol.

Two numbers have the same identity if cell, seed, metric and protocol agree; a results file holds each identity once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmark.definitions import definition_of, suggestion
from benchmark.errors import InputError, one_line, shortened
from benchmark.files import LARGEST_JSON, parse_json, write_text
from benchmark.record_fields import FAILED, FIELDS, NOT_APPLICABLE, OK, canonical, is_json, is_text

SCHEMA = 1
Identity = tuple[str, int, str, str]


@dataclass(frozen=True)
class Record:
    """One number with all that is needed to compare it.

    ``value`` and ``stderr`` (standard error within this one measurement, not over seeds) are in ``unit``, unrounded;
    ``n`` counts the images, samples or pairs behind the value. ``value`` is None unless ``status`` is ``ok``, and then
    ``reason`` says why: a missing capability (``n/a``) or an error (``failed``). ``higher_is_better`` is None for a
    metric that should be near a target. ``protocol`` holds what makes numbers differ besides the method
    (``feature_network``, ``sampler``, ``nfe``, ``guidance_scale``, ``n_labeled``, ``kind`` ...): texts, numbers,
    booleans, None, or lists of them. ``key`` is the hash of the stage that made the number.

    Raises:
        ValueError: If a field has a wrong type or range, contradicts ``status`` or the metric's definition; the
            message starts with the field's name.
    """

    cell: str
    method: str
    seed: int
    metric: str
    value: float | None
    unit: str
    higher_is_better: bool | None
    n: int | None
    stderr: float | None
    status: Literal["ok", "n/a", "failed"]
    reason: str | None
    protocol: dict[str, Any]
    seconds: float | None
    peak_memory_bytes: int | None
    key: str

    def __post_init__(self) -> None:
        for name, (needed, valid) in FIELDS.items():
            if not valid(getattr(self, name)):
                raise ValueError(f"{name}: need {needed}, got {shortened(getattr(self, name))}")
        self._check_definition()
        if self.status == OK:
            if self.value is None or self.n is None or self.reason is not None:
                raise ValueError("status: 'ok' needs a value, n and no reason; use 'n/a' or 'failed' otherwise")
        elif self.value is not None or self.stderr is not None or not self.reason:
            raise ValueError(f"status: {self.status!r} needs a reason and neither value nor stderr")
        for name in ("value", "stderr", "seconds"):
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else float(number))
        object.__setattr__(self, "protocol", {name: canonical(self.protocol[name]) for name in sorted(self.protocol)})

    def _check_definition(self) -> None:
        try:
            definition = definition_of(self.metric)
        except ValueError as error:
            raise ValueError(f"metric: {error}") from None
        for name in ("unit", "higher_is_better"):
            if getattr(self, name) != getattr(definition, name):
                raise ValueError(
                    f"{name}: {self.metric} has {getattr(definition, name)!r}, got {shortened(getattr(self, name))}"
                )
        if self.value is not None and not definition.low <= self.value <= definition.high:
            limits = f"from {definition.low:g} to {definition.high:g} ({definition.unit or 'no unit'})"
            raise ValueError(f"value: {self.metric} needs a number {limits}, got {self.value!r}")

    @cached_property
    def protocol_text(self) -> str:
        """The protocol as canonical JSON: equal texts are equal protocols (1 and 1.0 are equal)."""
        return json.dumps(self.protocol, sort_keys=True)

    @property
    def identity(self) -> Identity:
        """Cell, seed, metric and canonical protocol: what must agree for two numbers to be compared."""
        return self.cell, self.seed, self.metric, self.protocol_text


@dataclass(frozen=True)
class Results:
    """All numbers of a suite.

    ``environment`` holds versions and hardware as JSON values, without time stamps or host names.

    Raises:
        ValueError: If two records have the same identity or a field is not as said.
    """

    suite: str
    commit: str
    environment: dict[str, Any]
    records: tuple[Record, ...]

    def __post_init__(self) -> None:
        if not is_text(self.suite) or not self.suite:
            raise ValueError(f"suite: need a text, got {shortened(self.suite)}")
        if not is_text(self.commit):
            raise ValueError(f"commit: need a text, got {shortened(self.commit)}")
        if not isinstance(self.environment, dict) or not is_json(self.environment):
            raise ValueError("environment: need an object of JSON values without NaN or infinity")
        object.__setattr__(self, "records", tuple(self.records))
        seen: dict[Identity, int] = {}
        for index, record in enumerate(self.records):
            first = seen.setdefault(record.identity, index)
            if first != index:
                raise ValueError(
                    f"records[{index}]: same cell, seed, metric and protocol as records[{first}]"
                    f" ({record.cell!r}, {record.seed}, {record.metric!r}); keep one"
                )

    @property
    def sorted_records(self) -> list[Record]:
        """Records in the order of files: by cell, metric, protocol and seed."""
        return sorted(self.records, key=lambda r: (r.cell, r.metric, r.protocol_text, r.seed))


def measured(
    cell: str,
    method: str,
    seed: int,
    metric: str,
    value: float,
    *,
    n: int,
    stderr: float | None = None,
    protocol: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    peak_memory_bytes: int | None = None,
    key: str = "",
) -> Record:
    """A number; unit and direction come from the metric's definition. Takes NumPy and torch scalars too."""
    error = None if stderr is None else float(stderr)
    return _record(
        cell, method, seed, metric, OK, None, protocol, key, float(value), int(n), error, seconds, peak_memory_bytes
    )


def not_applicable(
    cell: str,
    method: str,
    seed: int,
    metric: str,
    reason: str,
    *,
    protocol: Mapping[str, Any] | None = None,
    key: str = "",
) -> Record:
    """A number that cannot be asked of this method, and why."""
    return _record(cell, method, seed, metric, NOT_APPLICABLE, reason, protocol, key)


def failed(
    cell: str,
    method: str,
    seed: int,
    metric: str,
    error: BaseException | str,
    *,
    protocol: Mapping[str, Any] | None = None,
    key: str = "",
) -> Record:
    """A number that should exist and does not, with the error on one line."""
    reason = f"{type(error).__name__}: {one_line(error)}" if isinstance(error, BaseException) else error
    return _record(cell, method, seed, metric, FAILED, " ".join(reason.split()), protocol, key)


def _record(
    cell: str,
    method: str,
    seed: int,
    metric: str,
    status: str,
    reason: str | None,
    protocol: Mapping[str, Any] | None,
    key: str,
    value: float | None = None,
    n: int | None = None,
    stderr: float | None = None,
    seconds: float | None = None,
    peak_memory_bytes: int | None = None,
) -> Record:
    definition = definition_of(metric)
    return Record(
        cell=cell,
        method=method,
        seed=seed,
        metric=metric,
        value=value,
        unit=definition.unit,
        higher_is_better=definition.higher_is_better,
        n=n,
        stderr=stderr,
        status=status,
        reason=reason,
        protocol=dict(protocol or {}),
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        key=key,
    )


def write_results(path: Path, results: Results) -> None:
    """Write canonical JSON: records sorted by cell, metric, protocol and seed, keys sorted, numbers unrounded.

    A record takes a line, so that a difference of two files is one of records.
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
        with open(path, "rb") as file:  # which may be a pipe
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
