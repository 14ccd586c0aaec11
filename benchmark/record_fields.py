"""What each field of a record may hold, and the checks of JSON values behind it."""

import math
import re
from collections.abc import Callable
from typing import Any

OK, NOT_APPLICABLE, FAILED = STATUSES = ("ok", "n/a", "failed")
MAX_SEED = 2**32 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: Any) -> bool:
    """Whether ``value`` is a text that can be written as UTF-8."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def is_int(value: Any, low: int = 0, high: float = math.inf) -> bool:
    """Whether ``value`` is a whole number from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_json(value: Any) -> bool:
    """Whether ``value`` can be written as JSON; NaN and infinity cannot."""
    if isinstance(value, dict):
        return all(is_text(name) and is_json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, bool) or is_text(value) or is_number(value)


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
