"""Jobs of a suite, and ``plan.json``, the list of a run's jobs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened, shown
from benchmark.suite.cells import Cell
from benchmark.suite.needs import forgotten, weights_key
from benchmark.suite.stages import Stage
from benchmark.system.files import read_manifest, write_json
from benchmark.system.names import NAME
from benchmark.system.values import MAX_SEED, is_int, is_number, is_text


@dataclass(frozen=True)
class Job:
    """Training or evaluation of one cell with one seed.

    Attributes:
        cell: The cell.
        seed: Its seed.
        part: ``train`` or ``evaluate``.
        folder: Where its files go.
        stages: Pieces of its work, in order.
        trained: Folder of the training whose weights it uses: its own, or that of an earlier cell with equal training.
        arguments: Command line that builds the method.
        needs: Jobs that must be finished first.
        after: Jobs to run first if possible; their stages can be reused.
        reference: Folder of the reference classifier's cell.
        reference_arguments: Command line that builds the reference.
        reference_config: Resolved configuration of the reference, with the content of its data.
        config: Resolved configuration of the cell, with the content of its data.
        steps: Steps of the training; 0 if no number limits it.
        given: Hash of its given samples, if it measures some.
    """

    cell: Cell
    seed: int
    part: str
    folder: Path
    stages: tuple[Stage, ...]
    trained: Path | None = None
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    reference: Path | None = None
    reference_arguments: tuple[str, ...] = ()
    reference_config: dict[str, Any] = field(default_factory=dict, compare=False)
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    steps: int = 0
    given: str | None = None

    @property
    def name(self) -> str:
        """``<cell>/seed<k>/<part>``."""
        return f"{self.cell.name}/seed{self.seed}/{self.part}"

    @property
    def method(self) -> str:
        """Module name of the method, or the kind of images in its place."""
        if self.cell.config is None:
            return "given_samples" if self.cell.images is None else f"images_{self.cell.images}"
        return self.config["model"]["class_path"].split(".")[-2]

    def stage(self, kind: str) -> Stage:
        """The first stage of a kind."""
        return next(stage for stage in self.stages if stage.kind == kind)

    @property
    def finished(self) -> bool:
        """Tell whether every stage is finished."""
        return all(stage.completed(self.folder) is not None for stage in self.stages)


def arguments(cell: Cell, seed: int | str, folder: Path, needed: dict[str, Path]) -> tuple[str, ...]:
    """Command line of a cell; ``needed`` are the folders of the trainings that it needs, by argument of its method."""
    words = [f"--config={cell.config}", f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
    for key, value in (*forgotten(cell).items(), *cell.set.items()):
        words.append(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")
    words += [f"--{weights_key(a)}={needed[a] / 'checkpoints' / 'final.ckpt'}" for a in cell.needs]
    return tuple(words)


PLAN = "plan.json"
"""File of a run's folder that lists its jobs."""
QUEUE = "queue"
"""Script in a run's folder that submits its jobs to Slurm, where they may wait without a process."""


def write_plan(out: Path, suite: str, key: str, resolved: dict[str, dict[str, Any]], jobs: list[Job]) -> None:
    """Write a run's jobs and, for the next run, the resolved configurations that they come from.

    Args:
        out: Folder of the run.
        suite: Name of the suite.
        key: Hash of everything that the configurations depend on.
        resolved: Configurations, by cell.
        jobs: Jobs in an order in which needs come first.
    """
    plan = {"suite": suite, "key": key, "resolved": resolved, "jobs": [_written(job) for job in jobs]}
    if read_manifest(out / PLAN) != plan:
        write_json(out / PLAN, plan)


def check_owner(out: Path, suite: str) -> None:
    """Check that a folder holds no run of another suite, whose cells of the same names would be lost.

    Raises:
        InputError: If it does.
    """
    plan = read_manifest(out / PLAN)
    owner = plan.get("suite") if isinstance(plan, dict) else None
    if is_text(owner) and owner != suite:
        raise InputError(f"{out} holds a run of suite {shown(owner, 64)}; choose another folder with --out")


def leave_out(out: Path, cell: str) -> None:
    """Remove a cell's jobs from a run's plan, if there is a readable one."""
    plan = read_manifest(out / PLAN)
    try:
        jobs = [job for job in plan["jobs"] if job["cell"] != cell]
    except (KeyError, TypeError):
        return
    write_json(out / PLAN, {**plan, "jobs": jobs})


def _written(job: Job) -> dict[str, Any]:
    return {
        "cell": job.cell.name,
        "floor": job.cell.floor,
        "seed": job.seed,
        "part": job.part,
        "stages": [asdict(stage) for stage in job.stages],
        "needs": list(job.needs),
        "after": list(job.after),
        "steps": job.steps,
    }


def read_plan(out: Path) -> tuple[str, list[Job]]:
    """Name of the suite and jobs of a run's folder, also after the folder was moved.

    Raises:
        InputError: If the folder holds no run, or its plan cannot be read.
    """
    if not (out / PLAN).is_file():
        raise InputError(f"no run in {out}; name the folder that python -m benchmark.run wrote, e.g. runs/digits")
    plan = read_manifest(out / PLAN)
    try:
        if not is_text(plan["suite"]):
            raise ValueError("the suite has no name")
        return plan["suite"], [_read(out, job) for job in plan["jobs"]]
    except (KeyError, TypeError, ValueError):
        hint = "run the suite once more with the same --out"
        raise InputError(f"{out / PLAN} is not a plan that this version can read; {hint}") from None


def _read(out: Path, job: dict[str, Any]) -> Job:
    """Job from its entry in a plan.

    Raises:
        KeyError, TypeError, ValueError: If it is anything else.
    """
    cell, seed, part = job["cell"], job["seed"], job["part"]
    valid = NAME.fullmatch(cell) and is_int(seed, 0, MAX_SEED) and part in ("train", "evaluate")
    valid = valid and is_int(job["steps"], -1, 2**63) and _are_texts(job["needs"]) and _are_texts(job["after"])
    floor = job.get("floor", False)
    valid = valid and isinstance(floor, bool)
    stages = tuple(Stage(**stage) for stage in job["stages"])
    if not valid or not stages or not all(map(_is_stage, stages)):
        raise ValueError(f"no job: {shortened(job)}")
    return Job(
        Cell(cell, floor=floor), seed, part, out / cell / f"seed{seed}", stages,
        needs=tuple(job["needs"]), after=tuple(job["after"]), steps=job["steps"],
    )  # fmt: skip


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _is_stage(stage: Stage) -> bool:
    network, scale = stage.network is None or is_text(stage.network), stage.scale is None or is_number(stage.scale)
    return is_text(stage.kind) and is_text(stage.key) and network and scale
