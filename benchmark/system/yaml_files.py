"""YAML files, read as UTF-8 and refused where they give a key twice or hold more than anybody needs."""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import yaml

from benchmark.errors import InputError, shortened
from benchmark.system.files import read_bytes

LARGEST_FILE = 2**20
"""Bytes of the largest file."""
LARGEST = 100_000
"""Values that one file may give, as often as aliases repeat them; every 100 characters of a text count as one more."""
DEEPEST = 100
"""Levels that values may be nested, aliases included."""
MERGES = 1000
"""Mappings that one file may take over into others by ``<<``."""
LONGEST_NUMBER = 1000
"""Characters of the longest number."""
_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


class TooLargeError(InputError):
    """A YAML text beyond the limits, which nobody should read."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML that refuses a key given twice, where the plain loader lets the second win, and tells every error's line.

    Numbers need no decimal point before an exponent (``5e-1``), as in YAML 1.2 and for the parser of configurations.
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
            raise _unreadable(node) from None  # a date that no calendar has, a boolean that is neither

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[Any] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key_node.tag == _MERGE or not _hashable(key):  # which the plain loader refuses
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
    """The value in a YAML file.

    Raises:
        InputError: If it cannot be read, naming the line.
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
    """The value that a YAML text gives.

    Raises:
        InputError: If it cannot be read, naming ``where`` and the line; ``TooLargeError`` if it is beyond the limits.
    """
    try:
        _check_nodes(text)
        value = yaml.load(text, Loader=_Loader)
        if _measure(value, {})[0] > LARGEST:
            raise TooLargeError(f"gives more than {LARGEST} values; has it aliases of aliases?")
        return value
    except TooLargeError as error:
        raise TooLargeError(f"{where} {error}") from None
    except UnicodeEncodeError:  # half a surrogate, which the command line makes of other bytes
        raise InputError(f"{where} is not UTF-8 text") from None
    except RecursionError:
        raise TooLargeError(f"{where} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from error


def guarded(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Another reader of YAML, which is given no text beyond our limits; what is no YAML it refuses itself."""

    @wraps(load)
    def within_limits(text: str) -> Any:
        try:
            parse_text(text, "a configuration")
        except TooLargeError:
            raise
        except InputError:  # no YAML, of which the reader thinks on its own
            pass
        return load(text)

    return within_limits


def _check_nodes(text: str) -> None:
    """Go through a text without building anything, for what would be too much to build."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError
        if nodes > LARGEST:
            raise TooLargeError(f"gives more than {LARGEST} values")


def _measure(value: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values there are in one, those of aliases each time, and how deep; ``known`` are those seen, by ``id``.

    Raises:
        RecursionError: If it is deeper than ``DEEPEST`` or holds itself.
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
        raise InputError(f"{where}: expected keys and values, got {shortened(value)}")
    return value


def optional_mapping(raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The mapping under a key; an empty one where the key is missing or empty.

    Raises:
        InputError: If something else is there.
    """
    return mapping(raw[key], f"{where}: {key}") if raw.get(key) not in (None, {}) else {}


def file_named(value: Any, beside: Path) -> Path | None:
    """The YAML file that a value includes, if it does."""
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        path = beside.parent / value
        return path if path.is_file() else None
    return None
