"""Files written whole or not at all, guarded readers, and digests."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from benchmark.errors import WriteError

PROCESS = uuid.uuid4().hex[:8]
"""Identifier of this process among processes of the same number on other machines."""
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
LARGEST_JSON = 32 * 2**20
"""Bytes of the largest JSON file that is read."""
DEEPEST_JSON = 100
"""Levels that its values may be nested."""
UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EEXIST", "ENOTDIR")
}
"""Errors of a full, closed or broken disk, and of a file in place of a folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, sync it and rename it to ``path``.

    Raises:
        WriteError: If the disk is full or closed; names ``path``, the written size and the free space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{PROCESS}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for errors of the system
        cause = _of_disk(error, temporary)
        if cause is None:
            raise
        raise WriteError(f"cannot write {path}: {cause.strerror}{_room(temporary)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _of_disk(error: BaseException | None, temporary: Path) -> OSError | None:
    """The first error in a chain of causes that concerns writing ``temporary``, or None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in UNWRITABLE and _concerns(error, temporary):
            return error
        error = error.__cause__ or error.__context__
    return None


def _concerns(error: OSError, temporary: Path) -> bool:
    return error.filename is None or str(error.filename) in map(str, (temporary, *temporary.parents))


def _room(temporary: Path) -> str:
    """Written size and free space for a message; empty if unknown."""
    try:
        written, free = temporary.stat().st_size, shutil.disk_usage(temporary.parent).free
    except OSError:
        return ""
    return f" ({written / 2**20:.1f} MiB were written, {free / 2**20:.1f} MiB are free)"


def sweep(folder: Path, below: bool = True) -> None:
    """Delete half-written files of killed processes in ``folder`` and below; nobody may be writing there."""
    for path in folder.rglob(".*.tmp") if below else folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, which keeps its former content if that fails."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_bytes(path: Path, largest: int) -> bytes:
    """Content of an untrusted file.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it has more than ``largest`` bytes, or its name is invalid.
    """
    with opened(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"more than {largest >> 20} MiB")
    return content


def opened(path: Path) -> BinaryIO:
    """Open a regular file to read; OSError for others: a pipe would block, a device is endless."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_json(path: Path) -> Any:
    """Value in an untrusted JSON file.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is not UTF-8 JSON, has more than ``LARGEST_JSON`` bytes, or is nested too deeply.
    """
    return parse_json(read_bytes(path, LARGEST_JSON))


def parse_json(content: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Value of a JSON text.

    Args:
        content: The text in UTF-8.
        pairs: Makes an object of its names and values.

    Raises:
        ValueError: If it is not UTF-8 JSON, or is nested too deeply.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST_JSON):
        nested = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in nested for item in items]
    if level:
        raise ValueError("nested too deeply")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with sorted keys; NaN, which is no JSON, raises ValueError."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes; OSError if it cannot be read, or is no regular file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(path: str | Path) -> str | None:
    """Hash of the ``stamp`` of a file, or of the names and stamps of all files in a folder and below.

    None if nothing is there. Much faster than a hash of contents: seconds for a million files.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return digest(stamp(found))
    state, seen, folders = hashlib.sha256(), {(found.st_dev, found.st_ino)}, [(str(path), "")]
    while folders:
        folder, below = folders.pop()
        state.update(os.fsencode(f"{below}\0"))
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            try:
                found = entry.stat()
            except OSError:  # a dangling link
                state.update(os.fsencode(f"{entry.name}\0"))
                continue
            if not stat.S_ISDIR(found.st_mode):
                state.update(os.fsencode(f"{entry.name}\0{stamp(found)}\0"))
            elif (found.st_dev, found.st_ino) not in seen:  # a link may lead back up
                seen.add((found.st_dev, found.st_ino))
                folders.append((entry.path, f"{below}/{entry.name}"))
    return state.hexdigest()


def stamp(found: os.stat_result) -> tuple[int, ...]:
    """Numbers of a file that differ once it is written anew or replaced, even by one of equal size and date.

    Archives and images of containers give all their files one date, so the system's own number and time of change
    count beside it; nobody can set those.
    """
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def digest(value: Any) -> str:
    """sha256 of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest, or None if it is missing or unreadable."""
    try:
        manifest = read_json(path)
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None
