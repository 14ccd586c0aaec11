"""YAML files, read as UTF-8; duplicate keys and excessive content are refused."""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import InputError, shortened
from benchmark.system.files import read_bytes

YAML = (".yaml", ".yml")
"""Ends of names of YAML files."""
LARGEST_FILE = 2**20
"""Bytes of the largest file."""
LARGEST = 100_000
"""Most values of a file, repeated aliases included; every 100 characters of a text count as one more."""
DEEPEST = 100
"""Levels that values may be nested, aliases included."""
MERGES = 1000
"""Most mappings merged by ``<<`` in a file."""
LONGEST_NUMBER = 1000
"""Characters of the longest number."""
_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


class TooLargeError(InputError):
    """A YAML text beyond the limits."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Loader that refuses duplicate keys, where the plain loader keeps the second, and gives the line of errors.

    Numbers need no decimal point before an exponent (``5e-1``), as in YAML 1.2 and the parser of configurations.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._merged, self._taken_over = 0, 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _unreadable(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, OverflowError, LookupError, TypeError):
            raise _unreadable(node) from None  # an impossible date, a tagged text that is no boolean

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[Any] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key_node.tag == _MERGE or not _hashable(key):  # refused by the plain loader
                continue
            if key in given:
                told = f"key {shortened(key)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, told, key_node.start_mark)
            given.add(key)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(source, yaml.MappingNode):
                        self.flatten_mapping(source)
                        self._merged, self._taken_over = self._merged + 1, self._taken_over + len(source.value)
                    if self._merged > MERGES or self._taken_over > LARGEST:
                        raise TooLargeError(f"line {key.start_mark.line + 1} merges too much by <<")
        super().flatten_mapping(node)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?)$"),
    list("-+.0123456789"),
)


def _unreadable(node: yaml.Node) -> yaml.YAMLError:
    kind = node.tag.rpartition(":")[2]
    given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "what is given"
    told = f"{given} cannot be read as {kind}; put quotes around a text"
    return yaml.constructor.ConstructorError(None, None, told, node.start_mark)


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def parse_yaml(path: Path) -> Any:
    """Value in a YAML file.

    Raises:
        InputError: If it cannot be read; names the line.
    """
    try:
        text = read_bytes(path, LARGEST_FILE).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} has {error}; it is no configuration") from None
    return parse_text(text, str(path))


def parse_text(text: str, where: str) -> Any:
    """Value of a YAML text.

    Raises:
        InputError: If it cannot be read; names ``where`` and the line.
        TooLargeError: If it is beyond the limits.
    """
    try:
        _check_nodes(text)
        value = yaml.load(text, Loader=_Loader)
        if _measure(value, {})[0] > LARGEST:
            raise TooLargeError(f"gives more than {LARGEST} values; has it aliases of aliases?")
        return value
    except TooLargeError as error:
        raise TooLargeError(f"{where} {error}") from None
    except UnicodeEncodeError:  # half a surrogate, from undecodable bytes on the command line
        raise InputError(f"{where} is not UTF-8 text") from None
    except RecursionError:
        raise TooLargeError(f"{where} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error


def guarded(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Guard another YAML reader by our limits; it refuses invalid YAML itself."""

    @wraps(load)
    def within_limits(text: str) -> Any:
        try:
            parse_text(text, "a configuration")
        except TooLargeError:
            raise
        except InputError:  # invalid YAML, left to the reader
            pass
        return load(text)

    return within_limits


def _check_nodes(text: str) -> None:
    """Check depth and number of values of a text before anything is built."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError
        if nodes > LARGEST:
            raise TooLargeError(f"gives more than {LARGEST} values")


def _measure(value: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Number of values, with repeated aliases, and their depth; ``known`` holds those seen, by ``id``.

    Raises:
        RecursionError: If it is deeper than ``DEEPEST`` or contains itself.
    """
    if not isinstance(value, dict | list | tuple | set):
        return 1 + (len(value) // 100 if isinstance(value, str | bytes) else 0), 0
    if id(value) not in known:
        parts = [_measure(item, known) for item in (value.values() if isinstance(value, dict) else value)]
        known[id(value)] = 1 + sum(count for count, _ in parts), 1 + max((depth for _, depth in parts), default=0)
        if known[id(value)][1] > DEEPEST:
            raise RecursionError
    return known[id(value)]


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in a YAML file.

    Raises:
        InputError: If it cannot be read; names the line.
    """
    return mapping(parse_yaml(path), str(path))


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Check that a value is a mapping and not empty; returns it.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: expected keys and values, got {shortened(value)}")
    return value


def optional_mapping(raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Mapping under a key; empty if the key is missing or empty.

    Raises:
        InputError: If the value is anything else.
    """
    return mapping(raw[key], f"{where}: {key}") if raw.get(key) not in (None, {}) else {}


def file_named(value: Any, beside: Path) -> Path | None:
    """YAML file that a value includes, or None."""
    if isinstance(value, str) and value.endswith(YAML):
        path = beside.parent / value
        return path if path.is_file() else None
    return None
