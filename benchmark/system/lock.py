"""One folder, one writer: who works in it holds a lock that ends with the process."""

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


def hold(folder: Path, option: str, seconds: float = 0) -> Any:
    """The lock of a folder, taken.

    It is the system's: it ends with its holder however that ends, and where a file system has none, filelock looks for
    the holder's process.

    Args:
        folder: The folder; made where there is none.
        option: Name of the option that would choose another one, for messages.
        seconds: How long to wait for who holds it.

    Raises:
        InputError: If another process holds it, or nothing can be written there.
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
    """Hold a folder for this process alone, which carries out ``workers`` jobs side by side.

    ``owner.json`` says who holds it; what a killed holder left there is told on standard error. A folder that was made
    for this and in which nothing was written is taken away again.

    Yields:
        A function that raises ``WriteError`` if the folder was deleted or moved, and with it the lock.

    Raises:
        InputError: As ``hold`` does.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock, owner = hold(folder, option), folder / OWNER
    opened = os.open(folder, os.O_RDONLY)  # its number is given to no other folder while it is open

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
        with suppress(OSError):  # another may have come, or there is nothing left to open folders with
            if made and [path.name for path in folder.rglob("*") if path.is_file()] == [LOCK]:
                shutil.rmtree(folder)  # while the lock is held: who waits for it notices
                for path in made[1:]:
                    path.rmdir()
        lock.release()


def read_owner(folder: Path) -> dict[str, Any] | None:
    """What ``owner.json`` says of who holds a folder; None if there is none, or it is damaged."""
    owner = read_manifest(folder / OWNER) or {}
    whole = is_text(owner.get("host")) and all(is_text(owner[name]) for name in ("since", "boot") if name in owner)
    whole = whole and (owner.get("start") is None or is_text(owner["start"]))
    return owner if whole and all(is_int(owner.get(name, 1), 1, 2**31) for name in ("pid", "workers")) else None


def _named(owner: dict[str, Any] | None) -> str:
    """A holder in words; of another start of this machine, it says so."""
    owner = owner or {}
    here = owner.get("host") == platform.node() and owner.get("boot", boot_id()) != boot_id()
    before = ", before this machine was started anew" if here else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}{before}"
