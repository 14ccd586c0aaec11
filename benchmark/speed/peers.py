"""Helpers of the speed scripts: optional peers, and CPU times taken in turn."""

import json
import time
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch

from benchmark.errors import tell


def peer(module: str) -> Any:
    """The peer's module, or None with a message."""
    try:
        return import_module(module)
    except ImportError as error:
        tell(f"skipped {module}: {error}")


def race(target: str, package: str, ours: Callable, theirs: Callable, rounds: int, **more: Any) -> None:
    """Time both in turn, CPU seconds of this process, and print a JSON row; a ratio above 1 favours us."""
    times = np.empty((rounds, 2))
    for i, side in np.ndindex(*times.shape):
        start = time.process_time()
        (ours, theirs)[side]()
        times[i, side] = time.process_time() - start
    medians, ratios = np.median(times, 0), times[:, 1] / times[:, 0]
    row = {"target": target, "peer": package, "ratio": medians[1] / medians[0], "min": ratios.min(), "rounds": rounds}
    row |= {"seconds": medians.tolist(), "threads": torch.get_num_threads()}
    row["versions"] = {name: metadata.version(name) for name in sorted({"torch", "numpy", package})}
    print(json.dumps(row | more), flush=True)
