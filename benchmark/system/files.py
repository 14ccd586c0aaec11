"""Files that are either whole or absent, and digests of them."""

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
"""What tells this process from one of the same number on another machine."""
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
LARGEST_JSON = 32 * 2**20
"""Bytes of the largest JSON file that is read."""
DEEPEST_JSON = 100
"""Levels that its values may be nested."""
UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EEXIST", "ENOTDIR")
}
"""What the system says of a disk that is full, closed to us or broken, and of a file in the place of a folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path``, synced to disk, when the block succeeds.

    Raises:
        WriteError: If the disk is full or closed to us; it names ``path``, what was written of it and what is free.
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
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of the system's
        cause = _of_disk(error, temporary)
        if cause is None:
            raise
        raise WriteError(f"cannot write {path}: {cause.strerror}{_room(temporary)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _of_disk(error: BaseException | None, temporary: Path) -> OSError | None:
    """The error in a chain of causes that says that ``temporary`` cannot be written, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in UNWRITABLE and _concerns(error, temporary):
            return error
        error = error.__cause__ or error.__context__
    return None


def _concerns(error: OSError, temporary: Path) -> bool:
    return error.filename is None or str(error.filename) in map(str, (temporary, *temporary.parents))


def _room(temporary: Path) -> str:
    """What was written and what is free, for a message; nothing where that is not known."""
    try:
        written, free = temporary.stat().st_size, shutil.disk_usage(temporary.parent).free
    except OSError:
        return ""
    return f" ({written / 2**20:.1f} MiB were written, {free / 2**20:.1f} MiB are free)"


def sweep(folder: Path, below: bool = True) -> None:
    """Delete what killed processes left half written in ``folder``, and below it; no one may be writing there."""
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
    """Write ``text`` so that ``path`` holds all of it or what it held before."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file that may be anything.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it has more than ``largest`` bytes, or no file can have such a name.
    """
    with opened(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"more than {largest >> 20} MiB")
    return content


def opened(path: Path) -> BinaryIO:
    """A file to read from; OSError if it is no regular one: a pipe would be waited for, a device is endless."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_json(path: Path) -> Any:
    """The value in a JSON file that may have been written by anybody.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is not UTF-8 JSON, has more than ``LARGEST_JSON`` bytes, or is nested too deeply.
    """
    return parse_json(read_bytes(path, LARGEST_JSON))


def parse_json(content: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value that a JSON text gives.

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
    """Write ``value`` as JSON with sorted keys; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes; OSError if it cannot be read, or is no regular file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(path: str | Path) -> str | None:
    """Hash of size and date of a file, or of the names, sizes and dates of all files in a folder and below.

    None where there is nothing. Much faster than a hash of what the files hold: it takes seconds for a million of them.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    state = hashlib.sha256(f"{found.st_size} {found.st_mtime_ns}".encode())
    if not stat.S_ISDIR(found.st_mode):
        return state.hexdigest()
    state, seen, folders = hashlib.sha256(), {(found.st_dev, found.st_ino)}, [(str(path), "")]
    while folders:
        folder, below = folders.pop()
        state.update(os.fsencode(f"{below}\0"))
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            try:
                found = entry.stat()
            except OSError:  # a link that leads nowhere
                state.update(os.fsencode(f"{entry.name}\0"))
                continue
            if not stat.S_ISDIR(found.st_mode):
                state.update(os.fsencode(f"{entry.name}\0{found.st_size}\0{found.st_mtime_ns}\0"))
            elif (found.st_dev, found.st_ino) not in seen:  # a link may lead back up
                seen.add((found.st_dev, found.st_ino))
                folders.append((entry.path, f"{below}/{entry.name}"))
    return state.hexdigest()


def digest(value: Any) -> str:
    """sha256 of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest, or None if there is none that can be read."""
    try:
        manifest = read_json(path)
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None
