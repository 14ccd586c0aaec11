"""Scheduling: jobs whose needs are finished, and the devices of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmark.suite.jobs import Job

Result = dict[str, Any]
"""``job``, ``status`` (``ok``, ``failed`` or ``stopped``) and, of a failure, ``error``."""


class Waiting:
    """Jobs of a run that are not started, and results of ended ones.

    Args:
        jobs: Jobs in starting order.
        on_message: Receives the end of each job.
    """

    def __init__(self, jobs: Iterable[Job], on_message: Callable[[dict[str, Any]], None]) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._under_way: set[str] = set()
        self._tell = on_message
        self.results: dict[str, Result] = {}

    def take(self) -> Job | None:
        """Next job that can start, marked as started; None if there is none yet.

        A job ends like the first of its needs that did not end well.
        """
        for job in list(self._jobs.values()):  # needs come first, so one pass reaches all
            blocked = [n for n in job.needs if self.results.get(n, {"status": "ok"})["status"] != "ok"]
            if blocked:
                del self._jobs[job.name]
                self.end(job, self._blocked(job, self.results[blocked[0]]))
        for job in self._jobs.values():
            if not (self._jobs.keys() | self._under_way).intersection((*job.needs, *job.after)):
                self._under_way.add(self._jobs.pop(job.name).name)
                return job
        return None

    @staticmethod
    def _blocked(job: Job, cause: Result) -> Result:
        error = cause.get("error", "")
        if cause["job"] != f"{job.name.rpartition('/')[0]}/train":
            error = f"needs {cause['job']}, which {cause['status']}: {error}"
        return {"job": job.name, "status": cause["status"], "error": error}

    def put_back(self, job: Job) -> None:
        """Return a started job to the waiting ones."""
        self._under_way.discard(job.name)
        self._jobs[job.name] = job

    def end(self, job: Job, result: Result) -> None:
        """Record the result of a job."""
        self._under_way.discard(job.name)
        self.results[job.name] = result
        self._tell({"job": job.name, "event": result["status"], **result})

    def all_results(self) -> dict[str, Result]:
        """Results by name; jobs that were not started are ``stopped``."""
        return self.results | {name: {"job": name, "status": "stopped"} for name in self._jobs}


@dataclass(frozen=True)
class Demand:
    """Devices of one machine.

    Attributes:
        gpus: Number of GPUs.
        cpus: Number of cores.
    """

    gpus: int
    cpus: int

    def __str__(self) -> str:
        return f"{self.gpus} GPUs and {self.cpus} CPUs"

    def fits(self, other: "Demand") -> bool:
        """Tell whether a machine with ``other`` has these devices."""
        return self.gpus <= other.gpus and self.cpus <= other.cpus


def demand(job: Job, on_gpus: bool) -> Demand:
    """Devices of a job: a training needs those of its trainer, an evaluation one; each device needs a core.

    On GPUs each process that reads files needs a core too.

    Args:
        job: The job.
        on_gpus: Whether there are GPUs; a job with ``trainer.accelerator`` ``cpu`` needs none.
    """
    trainer = job.config.get("trainer") or {}
    accelerator = trainer.get("accelerator", "auto")
    devices = _number(trainer.get("devices", 1)) if job.part == "train" else 1
    if accelerator == "cpu" or (accelerator == "auto" and not on_gpus):
        return Demand(0, devices)
    readers = (job.config.get("data") or {}).get("init_args", {}).get("workers") or 0
    return Demand(devices, devices * (1 + readers))


def _number(devices: Any) -> int:
    """Number of devices in ``trainer.devices``; ``auto`` and -1 mean one."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    try:
        return max(1, int(devices))
    except ValueError:
        return 1
