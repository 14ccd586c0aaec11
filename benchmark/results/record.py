"""Records: one measured number each, with its cell and protocol.

Two numbers have the same identity if cell, seed, metric and protocol agree; a results file holds each identity once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from benchmark.errors import one_line, shortened
from benchmark.results.definitions import definition_of
from benchmark.system.values import MAX_SEED, is_int, is_json, is_number, is_text

Identity = tuple[str, int, str, str]


@dataclass(frozen=True)
class Record:
    """One number with all information for its comparison.

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
    """Record of a number, also a NumPy or torch scalar; unit and direction come from the metric's definition."""
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
    """Record of a number that does not apply to this method, with the reason."""
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
    """Record of a number that could not be measured, with the error on one line."""
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


OK, NOT_APPLICABLE, FAILED = STATUSES = ("ok", "n/a", "failed")
UNNORMALISED = "unnormalised"
"""Kind of a log-density without a known mass: smaller is not better, so it is never bold."""


def _is_protocol(value: Any) -> bool:
    if not isinstance(value, dict) or not is_json(value) or "" in value:
        return False
    scale = value.get("guidance_scale")
    if scale is not None and not is_number(scale):
        return False
    items = [part for item in value.values() for part in (item if isinstance(item, list) else [item])]
    return not any(isinstance(item, dict | list) for item in items)


def canonical(value: Any) -> Any:
    """Whole numbers as ``int``, so that 1 and 1.0 are one protocol."""
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _optional(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or valid(value)


# Name -> what is needed, for the message, and the check.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "cell": ("a text that is not empty", lambda value: is_text(value) and value != ""),
    "method": ("a text that is not empty", lambda value: is_text(value) and value != ""),
    "seed": (f"an integer from 0 to {MAX_SEED}", lambda value: is_int(value, 0, MAX_SEED)),
    "metric": ("a text", is_text),
    "value": ("a finite number or null", _optional(is_number)),
    "unit": ("a text", is_text),
    "higher_is_better": ("true, false or null", lambda value: value is None or isinstance(value, bool)),
    "n": ("an integer from 1 or null", _optional(lambda value: is_int(value, 1))),
    "stderr": ("a number from 0 or null", _optional(lambda value: is_number(value) and value >= 0)),
    "status": (f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES),
    "reason": ("a text or null", _optional(is_text)),
    "protocol": (
        "an object of texts, finite numbers, booleans, nulls or lists of them; guidance_scale a number",
        _is_protocol,
    ),
    "seconds": ("a number from 0 or null", _optional(lambda value: is_number(value) and value >= 0)),
    "peak_memory_bytes": ("an integer from 0 or null", _optional(is_int)),
    "key": ("a text", is_text),
}
