"""Engine of one machine: worker processes, one per GPU or else per core, that carry out jobs."""

import contextlib
import math
import multiprocessing
import os
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from benchmark.errors import MEMORY_HINT, MachineError, failure
from benchmark.execute import worker
from benchmark.execute.scheduler import Waiting
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import Suite
from benchmark.system.gpus import gpu_shares, visible_gpus
from benchmark.system.signals import delayed
from benchmark.system.surroundings import environment, working_folder

ATTEMPTS = 2
"""Attempts at a job whose worker dies."""
LAST_SECONDS = 30.0
"""Seconds for which a pool that is closed may take to notice that its process has ended."""


class _Worker:
    """A process that carries out one job at a time; a new one replaces it when it dies.

    Args:
        gpus: Its visible GPUs; None if there are none.
        stop: Shared flag that makes jobs save their state and end.
        threads: Threads of the numeric libraries.
    """

    def __init__(self, gpus: str | None, stop: Any, threads: int) -> None:
        self._gpus, self._stop, self._threads = gpus, stop, threads
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None
        self._messages: Any = None
        self.heard = 0.0
        """Monotonic time of its last message."""

    def submit(self, *call: Any) -> Future:
        """Submit work; starts a new process if there is none."""
        try:
            with delayed():  # half made, a queue leaves semaphores behind, a process without work a traceback
                if self._pool is None:
                    self._open()
                self.heard = time.monotonic()
                return self._pool.submit(*call)
        except BrokenProcessPool:  # it died while it was idle
            self.forget()
            return self.submit(*call)
        except Exception:
            self.kill()  # a process may have started already, and would look in vain for what its parent shares
            self.forget()  # half started, it cannot be shut down
            raise

    def _open(self) -> None:
        working_folder()  # inherited by the new process
        self._messages = self._context.Queue()  # its own: a killed process may take the queue's lock with it
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=self._context,
            initializer=worker.start,
            initargs=(os.getpid(), self._gpus, self._messages, self._stop, self._threads),
        )

    def hear(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        """Pass on the messages of its job."""
        with contextlib.suppress(queue.Empty):
            while self._messages is not None:
                on_message(self._messages.get_nowait())
                self.heard = time.monotonic()

    def kill(self) -> None:
        """End its process at once."""
        for process in list(self._pool._processes.values()) if self._pool is not None else ():
            process.kill()

    def forget(self) -> None:
        """Drop its dead process."""
        self._pool = None

    def close(self, wait: bool) -> None:
        """Let the process end, after its job if ``wait`` is true."""
        if self._pool is not None:
            manager = self._pool._executor_manager_thread
            self._pool.shutdown(wait=wait, cancel_futures=True)
            if manager is not None:  # at its own end Python writes to a pipe that this thread may be closing
                manager.join(LAST_SECONDS)


class LocalEngine:
    """Worker processes on this machine.

    Args:
        workers: Processes; by default one per GPU or, without GPUs, per core.
        threads: Threads of each.
        patience: Seconds without a message from a job before its process is killed and the job tried once more.
        here: Whether configurations are for this machine's devices.
        leased: Whether another machine may try the same jobs.
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int = 1,
        patience: float = math.inf,
        here: bool = True,
        leased: bool = False,
    ) -> None:
        self.here, self.leased = here, leased
        self.gpus = visible_gpus()
        self.workers = workers or max(1, len(self.gpus) or len(os.sched_getaffinity(0)))
        self.patience = patience
        # No lock, which a worker that is killed could take with it.
        self._stop = multiprocessing.get_context("spawn").RawValue("b", 0)
        shares = gpu_shares(self.gpus, self.workers)
        self._workers = [_Worker(shares[i % len(shares)], self._stop, threads) for i in range(self.workers)]
        self._threads = threads
        self._lasting = contextlib.ExitStack()

    @property
    def hardware(self) -> dict[str, Any]:
        """``cores`` and ``device``, for the environment in results."""
        return {
            "cores": len(os.sched_getaffinity(0)),
            "device": f"{len(self.gpus)} GPU" if self.gpus else "CPU",
        }

    def __enter__(self) -> "LocalEngine":
        # Read by the numeric libraries when a worker imports them.
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads))
        self._lasting.enter_context(environment(variables))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for each in self._workers:
            if kind is not None:  # their results are not needed
                each.kill()
            each.close(wait=not self._stop.value)
        self._lasting.close()

    def stop(self) -> None:
        """Let running jobs save their state and end."""
        self._stop.value = 1

    def resolve(self, cells: dict[str, tuple[str, ...]], dry: bool = False) -> dict[str, dict[str, Any]]:
        """Resolve configurations in worker processes; see ``build.resolve``."""
        names = list(cells)
        shares = [{name: cells[name] for name in names[i :: self.workers]} for i in range(self.workers)]
        found = self._answers([(worker.resolve, share, dry, self.here) for share in shares if share])
        resolved = {name: config for share in found for name, config in share.items()}
        return {name: resolved[name] for name in names}

    def count(self, suite: Suite, names: list[str]) -> dict[str, Any]:
        """Count the costs of cells of a suite in worker processes; see ``counting.count``."""
        shares = [names[i :: self.workers] for i in range(self.workers)]
        found = self._answers([(worker.count, suite, share) for share in shares if share])
        return {name: cost for share in found for name, cost in share.items()}

    def ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker process, where the heavy libraries are imported."""
        return self._answers([(work, *arguments)])[0]

    def _answers(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Results of calls, each in another worker process; a call whose process dies is made once more.

        Raises:
            MachineError: If it dies again.
        """
        found: dict[int, Any] = {}
        for _ in range(ATTEMPTS):
            futures = {i: self._workers[i].submit(*call) for i, call in enumerate(calls) if i not in found}
            for i, future in futures.items():
                try:
                    found[i] = future.result()
                except BrokenProcessPool:
                    self._workers[i].forget()
            if len(found) == len(calls):
                return [found[i] for i in range(len(calls))]
        raise MachineError("the process that reads configurations and samples died twice (killed, or out of memory)")

    def run(
        self,
        jobs: Iterable[Job],
        protocol: Protocol,
        on_message: Callable[[dict[str, Any]], None],
        watch: Callable[[], None] = lambda: None,
    ) -> dict[str, dict[str, Any]]:
        """Carry out jobs, each after its needs, earlier ones first.

        Args:
            jobs: The jobs.
            protocol: Protocol of the measurements.
            on_message: Receives progress and ends of jobs.
            watch: Called several times a second; an exception from it ends the run.

        Returns:
            Results by name, with ``status`` ``ok``, ``failed`` (with ``error``) or ``stopped``.
        """
        waiting = Waiting(jobs, on_message)
        deaths: Counter[str] = Counter()
        stuck: set[str] = set()
        running: dict[Future, tuple[Job, _Worker]] = {}

        def submit_ready() -> None:
            busy = [each for _, each in running.values()]
            for free in [each for each in self._workers if each not in busy]:
                if (job := waiting.take()) is None:
                    return
                running[free.submit(worker.work, job, protocol, self.leased)] = job, free
                on_message({"job": job.name, "event": "started"})

        submit_ready()
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            watch()
            for future, (job, each) in running.items():
                each.hear(on_message)
                if future in finished:
                    continue
                if time.monotonic() - each.heard > self.patience and job.name not in stuck:
                    stuck.add(job.name)
                    each.kill()
            for future in finished:
                job, each = running.pop(future)
                try:
                    waiting.end(job, future.result())
                except BrokenProcessPool:
                    each.forget()
                    deaths[job.name] += 1
                    if deaths[job.name] < ATTEMPTS:
                        stuck.discard(job.name)
                        waiting.put_back(job)
                        continue
                    waiting.end(job, {"job": job.name, "status": "failed", "error": self._died(job.name in stuck)})
                except Exception as error:  # an error of the worker itself: other jobs go on
                    waiting.end(job, {"job": job.name, "status": "failed", "error": failure(error)})
            if not self._stop.value:
                submit_ready()
        return waiting.all_results()

    def _died(self, stuck: bool) -> str:
        if stuck:
            return f"timeout: nothing was heard from it for {self.patience / 60:.3g} minutes; its log may say more"
        return f"its worker process died twice (killed, or out of memory: then {MEMORY_HINT})"
