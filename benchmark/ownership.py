"""One folder, one writer: who works in it holds a lock that ends with the process."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, WriteError
from benchmark.files import write_json
from benchmark.stages import read_manifest

LEAST_FREE_BYTES = 100 * 2**20


@contextmanager
def owned(folder: Path, option: str) -> Iterator[None]:
    """Hold a folder for this process alone.

    The lock is the system's: it ends with its holder however that ends, and where a file system has none, filelock
    looks for the holder's process. ``owner.json`` says who holds it; what a killed holder left there is told on
    standard error.

    Args:
        folder: The folder; made where there is none.
        option: Name of the option that would choose another one, for messages.

    Raises:
        InputError: If another process holds it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    instead = f"choose another folder with {option}"
    owner = folder / "owner.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            raise InputError(f"{folder} has {free >> 20} MiB free, a run needs {LEAST_FREE_BYTES >> 20}; {instead}")
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by {_named(read_manifest(owner))}; wait for it or {instead}") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; {instead}") from error
    try:
        if owner.exists():
            print(
                f"note: {folder} is taken over from {_named(read_manifest(owner))}, which ended without letting it go",
                file=sys.stderr,
                flush=True,
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            write_json(owner, {"pid": os.getpid(), "host": platform.node(), "since": since, "boot": _boot()})
        except WriteError as error:
            raise InputError(f"{error}; {instead}") from error
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _named(owner: dict[str, Any] | None) -> str:
    """A holder in words; of another start of this machine, it says so."""
    owner = owner or {}
    here = owner.get("host") == platform.node() and owner.get("boot", _boot()) != _boot()
    before = ", before this machine was started anew" if here else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}{before}"


def _boot() -> str:
    """What tells this start of the machine from others; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
