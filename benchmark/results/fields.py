"""Checks of the fields of a file that people write."""

from collections.abc import Mapping
from typing import Any

from benchmark.errors import InputError, shortened
from benchmark.results.definitions import suggestion
from benchmark.system.values import is_text


def check_keys(raw: dict[str, Any], known: Mapping[str, bool], where: str) -> dict[str, Any]:
    """Check that a mapping has known keys only, and all that are required; returns it.

    Args:
        raw: The mapping.
        known: Whether each key is required.
        where: Place for messages.

    Raises:
        InputError: If it has not.
    """
    for name in raw:
        if name not in known:
            raise InputError(f"{where}: unknown key {shortened(name)}{suggestion(str(name), known)}")
    for name, required in known.items():
        if required and name not in raw:
            raise InputError(f"{where}: {name} is missing")
    return raw


def text_of(raw: Mapping[str, Any], name: str, where: str) -> str:
    """The text under a key on one line.

    Raises:
        InputError: If it is no text, or empty.
    """
    if not is_text(raw[name]) or not raw[name].strip():
        raise InputError(f"{where}: {name}: expected a text, got {shortened(raw[name])}")
    return " ".join(raw[name].split())
