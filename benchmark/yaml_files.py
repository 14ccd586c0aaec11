"""YAML files, read as UTF-8 and refused where they give a key twice or hold more than they seem to."""

from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import InputError

LARGEST = 100_000
"""Values that one file may give, each as often as aliases repeat it."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the plain loader lets the second win, and tells every error's line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, OverflowError):  # a date that no calendar has, a number of 5,000 digits
            kind = node.tag.rpartition(":")[2]
            told = f"{str(node.value)[:40]!r} cannot be read as {kind}; put quotes around a text"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in given]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = given[number].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", mark)
        return super().construct_mapping(node, deep)


def parse_yaml(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return parse_text(text, str(path))


def parse_text(text: str, where: str) -> Any:
    """The value that a YAML text gives.

    Raises:
        InputError: If it cannot be read, naming ``where`` and the line, or if aliases make it endless or very long.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        if _count(value, {}) > LARGEST:
            raise InputError(f"{where} gives more than {LARGEST} values; has it aliases of aliases?")
        return value
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are in one, those of aliases each time; ``known`` are the counts of those seen, by ``id``.

    Raises:
        RecursionError: If it holds itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in items)
    return known[id(value)]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    return mapping(parse_yaml(path), str(path))


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A value that must be a mapping that is not empty.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: expected keys and values, got {value!r}")
    return value


def optional_mapping(raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The mapping under a key; an empty one where the key is missing or empty.

    Raises:
        InputError: If something else is there.
    """
    return mapping(raw[key], f"{where}: {key}") if raw.get(key) not in (None, {}) else {}
