"""Cells of equal cost: one of them is counted for all, in processes side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.cost.times import CellCost
from benchmark.suite.jobs import Job
from benchmark.suite.needs import weights_key
from benchmark.suite.settings import CONTENT, WITHOUT_EFFECT, without
from benchmark.suite.suite import Suite

FREE = (CONTENT, "config", "seed_everything", "optimizer", "lr_scheduler", "ema", "data.init_args.seed")
"""Settings that cost nothing: of every optimiser, Adam's two moments are counted."""
LABELS = "data.init_args.labels"
"""Setting of which images are labeled; it changes the length of an epoch alone."""


def counted_once(suite: Suite, jobs: Sequence[Job]) -> dict[str, str]:
    """The cell whose cost each cell has: the first with the same settings that cost something."""
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for job in jobs:
        key = job.cell.name if job.cell.name == suite.reference else _expensive(job)
        found.setdefault(job.cell.name, first.setdefault(key, job.cell.name))
    return found


def _expensive(job: Job) -> str:
    """Text of all that the cost of a job's cell depends on."""
    cell, config = job.cell, job.config
    if cell.config is None:
        return repr((cell.images, cell.samples))
    trainer = config.get("trainer") or {}
    by_steps = (trainer.get("max_steps") or 0) > 0 and (trainer.get("max_epochs") or -1) < 0
    dropped = {*FREE, *WITHOUT_EFFECT, *map(weights_key, cell.needs), *([LABELS] if by_steps else [])}
    kept = without(config, dropped - {"checkpoint_every"})  # which counts on the disk
    return json.dumps([kept, cell.guidance_scales], sort_keys=True, default=str)


def count_all(suite: Suite, jobs: Sequence[Job], engine: Any) -> Mapping[str, CellCost | str]:
    """Cost of each cell of some jobs, counted in an engine's worker processes; see ``counting.count``."""
    same = counted_once(suite, jobs)
    found = engine.count(suite, list(dict.fromkeys(same.values())))
    return {name: found[first] for name, first in same.items()}
