"""Lock of a folder: one process writes in it, and the lock ends with the process."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, WriteError, tell
from benchmark.system.files import read_manifest, write_json
from benchmark.system.machine import boot_id, this_process
from benchmark.system.values import is_int, is_text

OWNER, LOCK = "owner.json", ".lock"
LEAST_FREE_BYTES = 100 * 2**20


def acquire(folder: Path, option: str, seconds: float = 0) -> Any:
    """Acquire the lock of a folder.

    The lock is the system's and ends with its holder; on file systems without locks, filelock checks the holder's
    process.

    Args:
        folder: The folder; created if missing.
        option: Name of the option for another folder, for messages.
        seconds: Longest wait for another holder.

    Raises:
        InputError: If another process holds it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    instead = f"choose another folder with {option}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            raise InputError(f"{folder} has {free >> 20} MiB free, a run needs {LEAST_FREE_BYTES >> 20}; {instead}")
        lock = FileLock(folder / LOCK, timeout=seconds)
        lock.acquire()
    except Timeout:
        held = _named(read_owner(folder))
        raise InputError(f"{folder} is in use by {held}; wait for it or {instead}") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; {instead}") from error
    return lock


@contextmanager
def owned(folder: Path, option: str, workers: int = 1) -> Iterator[Callable[[], None]]:
    """Lock a folder for this process, which carries out ``workers`` jobs in parallel.

    ``owner.json`` names the holder; one left by a killed holder gives a note on standard error. A folder created for
    this is removed again if nothing was written in it.

    Yields:
        A function that raises ``WriteError`` if the folder, and with it the lock, was deleted or moved.

    Raises:
        InputError: As ``acquire`` does.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock, owner = acquire(folder, option), folder / OWNER
    opened = os.open(folder, os.O_RDONLY)  # keeps its inode from reuse

    def there() -> bool:
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.stat(folder), os.fstat(opened))
        return False

    def check() -> None:
        if not there():
            raise WriteError(f"{folder} is gone: it was deleted or moved while the run went on, which ends here")

    try:
        if owner.exists():
            held = _named(read_owner(folder))
            tell(f"note: {folder} is taken over from {held}, which ended without letting it go")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            write_json(owner, {**this_process(), "since": since, "workers": workers})
        except WriteError as error:
            raise InputError(f"{error}; choose another folder with {option}") from error
        yield check
    finally:
        if there():
            owner.unlink(missing_ok=True)
        os.close(opened)
        with suppress(OSError):  # another process may have come, or no file can be opened
            if made and [path.name for path in folder.rglob("*") if path.is_file()] == [LOCK]:
                shutil.rmtree(folder)  # while locked, so that waiting processes notice
                for path in made[1:]:
                    path.rmdir()
        lock.release()


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Holder of a folder in ``owner.json``; None if the file is missing or damaged."""
    owner = read_manifest(folder / OWNER) or {}
    whole = is_text(owner.get("host")) and all(is_text(owner[name]) for name in ("since", "boot") if name in owner)
    whole = whole and (owner.get("start") is None or is_text(owner["start"]))
    return owner if whole and all(is_int(owner.get(name, 1), 1, 2**31) for name in ("pid", "workers")) else None


def _named(owner: dict[str, Any] | None) -> str:
    """Description of a holder, which tells holders from before a restart of this machine."""
    owner = owner or {}
    here = owner.get("host") == platform.node() and owner.get("boot", boot_id()) != boot_id()
    before = ", before this machine was started anew" if here else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}{before}"
