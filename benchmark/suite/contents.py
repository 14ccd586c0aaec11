"""Content of the data and files that a configuration names: noted when it is resolved, and checked later."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import InputError
from benchmark.suite.settings import CONTENT
from benchmark.suite.source_code import class_paths, own_code, still_means
from benchmark.system.files import digest_file, state_of
from benchmark.system.surroundings import FOLDERS, absolute

if TYPE_CHECKING:
    from datamodules.base import ImageData

PARTS = ("train", "test")


def contents(config: dict[str, Any], data: "ImageData", known: dict[str, Any]) -> dict[str, Any]:
    """Content of what a resolved configuration names.

    Args:
        config: The configuration.
        data: Its data set.
        known: Fingerprints of earlier data sets, by their settings; this one is added.

    Returns:
        ``data``, the fingerprint of each official part; ``files``, the sha256 of each file that a setting names;
        ``code``, the meaning of each file of a user's own source; ``root``, the folder of data sets; ``sources``, the
        state of each file or folder that was read, or None if the data set does not name its own.
    """
    paths = sorted(set(_paths({k: v for k, v in config.items() if k != "data"})))
    code = own_code(class_paths(config))
    sources = None if data.sources is None else [*map(str, data.sources), *paths, *code]
    states = None if sources is None else {str(path): state_of(path) for path in sources}  # before what they hold
    key = repr(config["data"])
    if key not in known:
        known[key] = {part: data.fingerprint(part) for part in PARTS}
    return {
        "data": known[key],
        "files": {path: digest_file(path) for path in paths},
        "code": code,
        "root": _root(),
        "sources": states,
    }


def unchanged(contents: Iterable[dict[str, Any]]) -> bool:
    """Tell whether data and files have the noted names, sizes and dates, or are gone without a replacement."""
    now: dict[str, str | None] = {}
    for content in contents:
        if content["sources"] is None or (content["sources"] and content["root"] != _root()):
            return False
        for path, state in content["sources"].items():
            if path not in now:
                now[path] = state_of(path)
            if now[path] not in (state, None):
                return False
    return True


def check_contents(config: dict[str, Any], data: "ImageData", parts: Iterable[str] = PARTS) -> None:
    """Check that data, files and own source are as noted when the configuration was resolved, as keys of results say.

    A worker imports a module when the first job needs it, hours after the run was planned.

    Raises:
        InputError: If they were changed.
    """
    noted = config.get(CONTENT) or {}
    again = "start the run again, with --fresh if that does not help"
    for part in parts:
        if part in noted.get("data", {}) and data.fingerprint(part) != noted["data"][part]:
            raise InputError(
                f"the {part} part of {data.name} is not the one that this run was planned for: it was changed, or "
                f"another folder of data sets is used here; {again}"
            )
    for path, sha256 in noted.get("files", {}).items():
        if os.path.isfile(path) and digest_file(path) != sha256:
            raise InputError(f"{path} was changed since this run was planned; {again}")
    for path, meaning in noted.get("code", {}).items():
        if os.path.isfile(path) and not still_means(Path(path), meaning):
            raise InputError(f"the code in {path} was changed since this run was planned; {again}")


def _root() -> str:
    """Folder of data sets that name none of their own: from the environment, else ``data`` in the working folder."""
    return str(absolute(os.environ.get(FOLDERS["--data-root"]) or "data"))


def _paths(value: Any) -> list[str]:
    """Settings that name files."""
    if isinstance(value, dict):
        return [path for each in value.values() for path in _paths(each)]
    if isinstance(value, list):
        return [path for each in value for path in _paths(each)]
    return [value] if isinstance(value, str) and os.path.isfile(value) else []
