"""GPUs of this machine, found without importing torch."""

import itertools
import os
import re
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
DEVICES = Path("/dev")
UNCOUNTED = ("dxg", "kfd", "nvhost-gpu", "nvidiactl")
"""Devices of GPUs that the driver's folder does not list: of WSL, of AMD and on boards."""


def visible_gpus() -> list[str]:
    """Identifiers of the GPUs that this process may use; empty on a machine without GPUs."""
    present = _present()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or present == 0:
        return [str(number) for number in range(present or 0)]

    def usable(part: str) -> bool:  # CUDA ignores all after an unknown one
        known = present is None or not part.isdecimal() or int(part) < present
        return part not in ("", "-1") and known

    return list(itertools.takewhile(usable, (part.strip() for part in named.split(","))))


def _present() -> int | None:
    """Number of GPUs; None if there are some of unknown number."""
    try:
        listed, devices = len(os.listdir(DRIVER)), os.listdir(DEVICES)
    except OSError:
        return None if any((DEVICES / name).exists() for name in UNCOUNTED) else 0
    given = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in devices)
    return min(listed, given or listed)  # a container may list more than it has


def gpu_shares(gpus: list[str], workers: int) -> list[str | None]:
    """Visible GPUs of each worker: one, or several with fewer workers; None without GPUs.

    A cell that trains on ``n`` GPUs needs ``n`` times fewer workers than there are GPUs.
    """
    each = max(1, len(gpus) // workers)
    return [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)] or [None]
