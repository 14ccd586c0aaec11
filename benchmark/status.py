"""python -m benchmark.status RUN: jobs of a suite that are done, running, failed or missing, and the time left."""

import platform
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.arguments import Parser
from benchmark.cost.times import Seen, clock, predicted_seconds, time_left
from benchmark.errors import INCOMPLETE, OK, InputError, command, shown
from benchmark.execute.journal import is_alive, read_progress
from benchmark.suite.jobs import QUEUE, Job, read_plan
from benchmark.system.lock import read_owner
from benchmark.system.machine import runs_here
from benchmark.system.surroundings import path_option

STYLES = {"done": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "died": "red", "missing": "dim"}


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.status", description=__doc__)
    p.add_argument("run", metavar="DIR", type=path_option, help="folder of a run, e.g. runs/digits")
    p.add_argument("--watch", action="store_true", help="show it anew every few seconds until all has ended")
    p.add_argument("--every", metavar="SECONDS", type=float, default=5.0, help="with --watch, how often (default 5)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Show a run; returns the exit code: 0 if it is complete, 4 if not."""
    options = parser().parse_args(argv)
    if not options.every > 0:
        raise InputError(f"--every must be a positive number of seconds, got {options.every:g}")
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)  # in a file nothing is wrapped
    if options.watch:
        return _watch(options.run, options.every, console)
    at = look(options.run)
    console.print(at.view())
    return OK if at.complete else INCOMPLETE


def _watch(out: Path, every: float, console: Any) -> int:
    from rich.live import Live

    at = look(out)
    with Live(at.view(), console=console, auto_refresh=False, transient=False) as live:
        while not at.settled:
            time.sleep(every)
            at = look(out)
            live.update(at.view(), refresh=True)
    return OK if at.complete else INCOMPLETE


@dataclass(frozen=True)
class JobStatus:
    """State of one job.

    Attributes:
        job: The job.
        state: ``done``, ``running``, ``failed``, ``stopped``, ``died`` or ``missing``.
        stages: Finished stages.
        detail: Its current stage, or the reason of its state.
        seconds: Time of finished stages and of a running attempt.
        left: Seconds left of the current stage at its own pace, if known.
        share: Finished share of a running training, in [0, 1].
        seen: Measured time of a finished or running job.
    """

    job: Job
    state: str
    stages: int
    detail: str = ""
    seconds: float = 0.0
    left: float | None = None
    share: float = 0.0
    seen: Seen | None = None


class RunStatus:
    """A run at one moment.

    Args:
        suite: Name of the suite.
        jobs: State of each job.
        owner: Description of the process that carries it out, if there is one.
        queued: Whether its jobs may wait in a queue of Slurm.
    """

    def __init__(self, suite: str, jobs: list[JobStatus], owner: dict[str, Any] | None, queued: bool) -> None:
        self.suite, self.jobs, self.owner, self.queued = suite, jobs, owner, queued

    @property
    def complete(self) -> bool:
        """Tell whether every job is done."""
        return all(job.state == "done" for job in self.jobs)

    @property
    def settled(self) -> bool:
        """Tell whether nothing more can happen: all jobs are done, or none runs and none waits in a queue."""
        over = all(job.state in ("done", "failed") or job.detail.startswith("needs ") for job in self.jobs)
        running = self.owner is not None or any(job.state == "running" for job in self.jobs)
        return self.complete or (not running and (over or not self.queued))

    @property
    def headline(self) -> str:
        """Number of jobs by state, and the time left if it can be predicted."""
        counts = Counter(job.state for job in self.jobs)
        parts = [f"{counts.pop('done', 0)}/{len(self.jobs)} jobs done"]
        parts += [f"{counts[state]} {state}" for state in STYLES if counts[state]]
        if not self.complete:
            left = self._left()
            parts.append("time left unknown" if left is None else f"about {clock(left)} left")
        by = self.owner and f"; run by process {self.owner.get('pid')} on {self.owner.get('host')}"
        return f"suite {self.suite}: {', '.join(parts)}{by or ''}"

    def _left(self) -> float | None:
        """Seconds left at the pace of this run, predicted from committed results or finished jobs."""
        workers = (self.owner or {}).get("workers") or 1
        lost = [at for at in self.jobs if at.state == "failed" or at.detail.startswith("needs ")] if self.owner else []
        going = [at for at in self.jobs if at not in lost]
        done = {at.job.name: 1.0 if at.state == "done" else at.share for at in going if at.state == "done" or at.share}
        seen = {at.job.name: at.seen for at in going if at.seen is not None}
        whole = time_left([at.job for at in going], predicted_seconds(self.suite), workers, done, seen)
        paces = [at.left for at in going if at.left is not None]
        if whole is None:
            return max(paces) if paces and all(at.left is not None for at in going if at.state != "done") else None
        return max([whole, *paces])

    def view(self) -> Any:
        """The table and the headline below it."""
        from rich.console import Group
        from rich.text import Text

        return Group(self.table(), Text(shown(self.headline)))

    def table(self) -> Any:
        """A row for each job."""
        from rich.table import Column, Table
        from rich.text import Text

        table = Table(Column("job", no_wrap=True), "state", "stages", "time", "", box=None, pad_edge=False)
        for at in self.jobs:
            stages, spent = f"{at.stages}/{len(at.job.stages)}", clock(at.seconds) if at.seconds else ""
            words = [Text(shown(word)) for word in (at.job.name, at.state, stages, spent, at.detail)]
            words[1].stylize(STYLES[at.state])
            table.add_row(*words)
        return table


def look(out: Path) -> RunStatus:
    """Read the state of a run from its files; writes nothing and does not hash outputs again.

    Raises:
        InputError: If the folder holds no run, or its plan cannot be read.
    """
    suite, jobs = read_plan(out)
    found: dict[str, JobStatus] = {}
    for job in jobs:  # needs come first
        found[job.name] = _look_at(job, found)
    return RunStatus(suite, list(found.values()), _living_owner(out), (out / QUEUE).exists())


def _look_at(job: Job, known: dict[str, JobStatus]) -> JobStatus:
    finished = [m for stage in job.stages if (m := stage.recorded(job.folder)) is not None]
    spent = sum(m.get("seconds", 0.0) for m in finished)
    if len(finished) == len(job.stages):
        return JobStatus(job, "done", len(finished), seconds=spent, seen=Seen(spent))
    news = read_progress(job.folder, job.part)
    if news is not None and "status" in news:
        return JobStatus(job, news["status"], len(finished), news.get("error") or _where(news), spent)
    if news is not None and is_alive(news):
        return _running(job, news, len(finished), spent)
    if news is not None:
        where, ago = f"process {news['pid']} on {news['host']}", clock(max(0.0, time.time() - news["at"]))
        return JobStatus(job, "died", len(finished), f"{where}: no sign of life for {ago}", spent)
    failed = [need for need in job.needs if need in known and known[need].state in ("failed", "died")]
    detail = f"needs {failed[0]}, which {known[failed[0]].state}" if failed else ""
    return JobStatus(job, "missing", len(finished), detail, spent)


def _running(job: Job, news: dict[str, Any], stages: int, spent: float) -> JobStatus:
    now = time.time()
    done, total = news.get("done") or 0, news.get("total") or 0
    left, rate = None, news.get("rate")
    if rate and total:
        left = max(0.0, (total - done) / rate - (now - news["at"]))
    share = done / total if total and news.get("stage") == "train" else 0.0
    detail = f"{_where(news)}, on {news['host']}" + (f", {clock(left)} left of this" if left is not None else "")
    alone = left if job.part == "train" else None
    seconds = spent + now - news["since"]
    seen = Seen(done / rate, share) if share and rate else None if job.part == "train" else Seen(seconds, None)
    return JobStatus(job, "running", stages, detail, seconds, alone, share, seen)


def _where(news: dict[str, Any]) -> str:
    """``train 25/600``."""
    count = f" {news['done']}/{news['total']}" if news.get("total") else ""
    return f"{news.get('stage', 'starting')}{count}"


def _living_owner(out: Path) -> dict[str, Any] | None:
    owner = read_owner(out)
    elsewhere = owner is not None and owner.get("host") != platform.node()
    return owner if elsewhere or (owner is not None and runs_here(owner)) else None


if __name__ == "__main__":
    sys.exit(main())
