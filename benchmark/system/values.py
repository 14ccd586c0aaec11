"""Checks of JSON values."""

import math
import re
from typing import Any

MAX_SEED = 2**32 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: Any) -> bool:
    """Tell whether ``value`` is a text that can be written as UTF-8."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def is_int(value: Any, low: int = 0, high: float = math.inf) -> bool:
    """Tell whether ``value`` is a whole number from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_json(value: Any) -> bool:
    """Tell whether ``value`` can be written as JSON; NaN and infinity cannot."""
    if isinstance(value, dict):
        return all(is_text(name) and is_json(item) for name, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, bool) or is_text(value) or is_number(value)
