"""Scheduling: jobs whose needs are finished, and the devices that each asks for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmark.suite.jobs import Job

Result = dict[str, Any]
"""``job``, ``status`` (``ok``, ``failed`` or ``stopped``) and, of a failure, ``error``."""


class Waiting:
    """The jobs of a run that have not been started, and the results of those that have ended.

    Args:
        jobs: In the order in which they should start.
        on_message: Told how each job ended.
    """

    def __init__(self, jobs: Iterable[Job], on_message: Callable[[dict[str, Any]], None]) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._under_way: set[str] = set()
        self._tell = on_message
        self.results: dict[str, Result] = {}

    def take(self) -> Job | None:
        """The next job that can start, which is under way from now on; None where there is none yet.

        A job that needs one which did not end well ends like that one.
        """
        for job in list(self._jobs.values()):  # needs come first, so that what they end is seen in one pass
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
        """Let a job that was under way wait again."""
        self._under_way.discard(job.name)
        self._jobs[job.name] = job

    def end(self, job: Job, result: Result) -> None:
        """Take in how a job ended."""
        self._under_way.discard(job.name)
        self.results[job.name] = result
        self._tell({"job": job.name, "event": result["status"], **result})

    def all_results(self) -> dict[str, Result]:
        """The results by name; what has not been started is stopped."""
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
        """Whether a machine with ``other`` has it."""
        return self.gpus <= other.gpus and self.cpus <= other.cpus


def demand(job: Job, on_gpus: bool) -> Demand:
    """A training asks for the devices of its trainer, anything else for one; each device for a core.

    On a GPU also for a core for each process that reads files beside it.

    Args:
        job: The job.
        on_gpus: Whether there are GPUs; a job whose ``trainer.accelerator`` is ``cpu`` asks for none all the same.
    """
    trainer = job.config.get("trainer") or {}
    accelerator = trainer.get("accelerator", "auto")
    devices = _number(trainer.get("devices", 1)) if job.part == "train" else 1
    if accelerator == "cpu" or (accelerator == "auto" and not on_gpus):
        return Demand(0, devices)
    readers = (job.config.get("data") or {}).get("init_args", {}).get("workers") or 0
    return Demand(devices, devices * (1 + readers))


def _number(devices: Any) -> int:
    """How many devices ``trainer.devices`` names; ``auto`` and -1 are as many as a job is given, which is one."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    try:
        return max(1, int(devices))
    except ValueError:
        return 1
