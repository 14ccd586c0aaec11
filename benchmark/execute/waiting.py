"""Which of a suite's jobs can start: those whose needs have ended well, earlier ones first."""

from collections.abc import Callable, Iterable
from typing import Any

from benchmark.plan import Job

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
