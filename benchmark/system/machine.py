"""Processes of this machine."""

import functools
import os
import platform
import threading
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def boot_id() -> str:
    """Identifier of this start of this machine; empty if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def this_process() -> dict[str, Any]:
    """Identity of this process: machine, start of the machine, number, start of the process."""
    pid = os.getpid()
    return {"host": platform.node(), "boot": boot_id(), "pid": pid, "start": _start(pid)}


def runs_here(process: dict[str, Any]) -> bool | None:
    """Tell whether a process runs on this machine; None if it is another machine's, or unknown."""
    if not process.get("start") or (process.get("host"), process.get("boot")) != (platform.node(), boot_id()):
        return None
    return _start(process.get("pid")) == process["start"]  # its number may be reused


def _start(pid: int | None) -> str | None:
    """Start of a process in the kernel's ticks; None if it does not run, or unknown."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]  # it has ended, and only its exit code is left


FOREIGN = ("SLURM_", "MASTER_", "RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "TORCHELASTIC_", "PL_GLOBAL_SEED")
"""Prefixes of environment variables that describe another launch."""


@functools.cache
def end_with(process: int) -> None:
    """End this process when another ends: left behind, it would write beside the next attempt's."""
    start = _start(process)

    def watch() -> None:
        while start is not None and _start(process) == start:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> dict[str, Any]:
    """Name of this machine's processor and the number of its cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": len(os.sched_getaffinity(0))}
