"""Values in suite files: known keys, and the types that dataclasses declare for their fields."""

import difflib
import math
from collections.abc import Collection
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmark.errors import InputError
from benchmark.system.yaml_files import mapping


def check_keys(raw: dict[str, Any], known: Collection[str], where: str) -> None:
    """Refuse unknown keys.

    Raises:
        InputError: Naming the first one and the nearest known key.
    """
    for key in raw:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(sorted(known))}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")


def build(kind: type, raw: Any, where: str) -> Any:
    """A dataclass from a mapping, each value of the type that its field declares.

    Raises:
        InputError: If a key is unknown or a value is of another type.
    """
    types = get_type_hints(kind)
    check_keys(mapping(raw, where) if raw else {}, types, where)
    return kind(**{key: typed(value, types[key], f"{where}: {key}") for key, value in raw.items()})


def typed(value: Any, kind: Any, where: str) -> Any:
    """``value`` if it is of a type, lists made tuples where the type says so.

    Raises:
        InputError: If it is of another type.
    """
    kinds = get_args(kind) if NoneType in get_args(kind) else (kind,)
    if value is None and NoneType in kinds:
        return None
    base, parts = get_origin(kinds[0]) or kinds[0], get_args(kinds[0])
    if base is Any:
        return value
    if base is dict and isinstance(value, dict):
        return {typed(k, parts[0], where): typed(v, parts[1], f"{where}: {k}") for k, v in value.items()}
    if base in (list, tuple) and isinstance(value, list) and (parts[-1] is ... or base is list or len(value) == 2):
        return base(typed(item, parts[0], where) for item in value)
    fits, expected = {
        bool: (isinstance(value, bool), "true or false"),
        int: (type(value) is int and value >= 0, "an integer >= 0"),
        float: (type(value) in (int, float) and math.isfinite(value), "a number"),
        str: (isinstance(value, str), "text"),
        Literal: (value in parts, " or ".join(map(str, parts))),
        dict: (False, "keys and values"),
        list: (False, "a list"),
        tuple: (False, "a list of numbers" if ... in parts else "a list of two numbers"),
    }[base]
    if not fits:
        raise InputError(f"{where} must be {expected}, got {value!r}")
    return value
