"""View of a running suite: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from benchmark.cost.times import Seen, clock
from benchmark.errors import shown
from benchmark.suite.jobs import Job

UNITS = {"train": "steps", "gradients": "points"}
"""Units of stages that do not count images."""
BAR = 16
"""Characters of a job's progress bar."""
SOON = 10.0
"""Seconds below which time left is not told more exactly."""


class State:
    """State of a running suite.

    Args:
        jobs: All jobs of the run.
        finished: Names of the jobs that were done before.
        left: Seconds left of the run, or None if unknown, from the jobs that have not failed, their finished shares
            and the times of running ones. See ``times.TimeLeft``.
        summary: A few numbers of a finished job on one line.
        now: Clock in seconds.
    """

    def __init__(
        self,
        jobs: list[Job],
        finished: set[str],
        left: Callable[[list[Job], dict[str, float], dict[str, Seen]], float | None],
        summary: Callable[[Job], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.done, self.failed = set(finished), set()
        self.running: dict[str, dict[str, Any]] = {}
        self._started: dict[str, float] = {}
        self.start = now()
        self._left, self.summary, self._now = left, summary, now

    def update(self, message: dict[str, Any]) -> None:
        """Process a message of the engine."""
        name, event = message["job"], message.get("event")
        if event == "started":
            self.running[name] = {"stage": "starting"}
            self._started[name] = self._now()
        elif event is not None:
            self.running.pop(name, None)
            {"ok": self.done, "failed": self.failed}.get(event, set()).add(name)
        elif name in self.running:
            seen = self.running[name]
            seen = {**seen, **message} if message["stage"] == seen["stage"] else dict(message)
            self._time(seen)
            self.running[name] = seen  # replaced as a whole, for the thread that draws

    def _time(self, seen: dict[str, Any]) -> None:
        """Add rate and end of a stage, measured since its first message with a total."""
        if seen["total"] == 0:
            return
        now = self._now()
        first, since = seen.setdefault("first", (seen["done"], now))
        if now - since > 0.5 and seen["done"] > first:
            seen["rate"] = (seen["done"] - first) / (now - since)
            if seen["total"] > 0:
                seen["end"] = now + (seen["total"] - seen["done"]) / seen["rate"]

    @property
    def headline(self) -> str:
        """Finished jobs, time spent and time left."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        shares, seen = self._of_running()
        left = self._left(
            [job for name, job in self.jobs.items() if name not in self.failed],
            {**shares, **dict.fromkeys(self.done, 1.0)},
            seen,
        )
        return (
            f"{len(self.done)}/{len(self.jobs)} jobs done{failed}, {clock(self._now() - self.start)} spent{_left(left)}"
        )

    def _of_running(self) -> tuple[dict[str, float], dict[str, Seen]]:
        """Finished shares of running trainings, and measured times of all running jobs."""
        shares, seen = {}, {}
        for name, at in self.running.items():
            training = at["stage"] == "train" and at.get("total", 0) > 0
            if training:
                shares[name] = at["done"] / at["total"]
            if training and "rate" in at:
                seen[name] = Seen(at["done"] / at["rate"], shares[name])
            elif not training:
                seen[name] = Seen(self._now() - self._started[name], None)
        return shares, seen

    def line(self, name: str) -> str:
        """A running job in one line."""
        at = self.running[name]
        parts = [f"{name}: {at['stage']}"]
        if at.get("total", 0) > 0:
            parts.append(f"{at['done']}/{at['total']}")
        if "rate" in at:
            rate, unit = at["rate"], UNITS.get(at["stage"], "images")
            parts.append(f"{rate:.1f} {unit}/s" if rate >= 1 else f"{rate:.2g} {unit}/s")
        if "end" in at:
            parts.append(f"{clock(max(0.0, at['end'] - self._now()))} left")
        if at.get("loss") is not None:
            parts.append(f"loss {at['loss']:.4f}")
        return "  ".join(parts)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ", unknown time left"
    if seconds == 0:
        return ""
    return f", about {clock(seconds)} left" if seconds >= SOON else f", under {SOON:.0f} seconds left"


class PlainView:
    """Lines when a job starts or ends, and at intervals the progress of running ones."""

    def __init__(self, state: State, every: float = 20.0) -> None:
        self.state, self.every, self._last = state, every, time.monotonic()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: Any) -> None:
        """Does nothing."""

    def __call__(self, message: dict[str, Any]) -> None:
        self.state.update(message)
        name, event = message["job"], message.get("event")
        if event == "failed":
            print(f"failed   {name}: {shown(message['error'])}", flush=True)
        elif event == "ok":
            print(f"done     {name}  {self.state.summary(self.state.jobs[name])}", flush=True)
            print(f"         {self.state.headline}", flush=True)
        elif event is not None:
            print(f"{event:<8} {name}", flush=True)
        elif time.monotonic() - self._last > self.every:
            self._last = time.monotonic()
            for running in self.state.running:
                print(f"         {self.state.line(running)}", flush=True)


class LiveView:
    """Progress of running jobs, redrawn in place on a terminal."""

    def __init__(self, state: State) -> None:
        from rich.console import Console
        from rich.live import Live

        self.state = state
        self.console = Console()
        self.live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.__exit__(kind, error, trace)

    def __call__(self, message: dict[str, Any]) -> None:
        self.state.update(message)
        name, event = message["job"], message.get("event")
        if event == "ok":
            self._print("green", "done", f"{name}  {self.state.summary(self.state.jobs[name])}")
        elif event == "failed":
            self._print("red", "failed", f"{name}: {shown(message['error'])}")

    def _print(self, colour: str, event: str, text: str) -> None:
        from rich.text import Text

        self.console.print(Text.assemble((f"{event:<8} ", colour), text))

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=BAR)
        for name, at in self.state.running.items():
            bar = ProgressBar(total=at.get("total") or 1, completed=at.get("done", 0), width=BAR)
            table.add_row(Text(self.state.line(name)), bar)
        return Group(table, Text(self.state.headline, style="bold"))
