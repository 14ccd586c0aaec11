"""One machine: a pool of worker processes, one per GPU or else per core, that carry out jobs as their needs are met."""

import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from benchmark.errors import MEMORY_HINT, InputError
from benchmark.execute import worker
from benchmark.execute.waiting import Waiting
from benchmark.plan import Job
from benchmark.protocol import Protocol

ATTEMPTS = 2
"""Times a job is tried whose worker dies."""


class LocalEngine:
    """Worker processes on this machine.

    Args:
        workers: Processes; by default one per GPU or, without one, per core.
        threads: Threads of each.
    """

    def __init__(self, workers: int | None = None, threads: int = 1) -> None:
        self.gpus = visible_gpus()
        self.workers = workers or max(1, len(self.gpus) or len(os.sched_getaffinity(0)))
        self.threads = threads
        self._context = multiprocessing.get_context("spawn")
        # No lock, which a worker that is killed could take with it.
        self._stop = self._context.RawValue("b", 0)
        self._messages: Any = None
        self._pool: ProcessPoolExecutor | None = None

    @property
    def hardware(self) -> dict[str, Any]:
        """``cores`` and ``device`` for the results' description of where they were measured."""
        return {
            "cores": len(os.sched_getaffinity(0)),
            "device": f"{len(self.gpus)} GPU" if self.gpus else "CPU",
        }

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._pool is not None:
            if kind is not None:  # nobody waits for what they are doing
                for process in multiprocessing.active_children():
                    process.kill()
            self._pool.shutdown(wait=not self._stop.value, cancel_futures=True)

    def stop(self) -> None:
        """Let running jobs save their state and end."""
        self._stop.value = 1

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Read by the numeric libraries when a worker imports them.
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[name] = str(self.threads)
            slots = self._context.Queue()
            shares = gpu_shares(self.gpus, self.workers)
            for number in range(2 * self.workers):  # more than workers ever start
                slots.put(shares[number % len(shares)])
            self._messages = self._context.Queue()
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=self._context,
                initializer=worker.start,
                initargs=(os.getpid(), slots, self._messages, self._stop, self.threads),
            )
        return self._pool

    def _submit(self, *call: Any) -> tuple[Future, ProcessPoolExecutor]:
        """Hand work to a worker; new ones are started where one has died since the last time."""
        pool = self._workers()
        try:
            with _uninterrupted():
                return pool.submit(*call), pool
        except BrokenProcessPool:
            self._pool = None
            return self._submit(*call)

    def resolve(self, cells: dict[str, tuple[str, ...]], dry: bool = False) -> dict[str, dict[str, Any]]:
        """Configurations with all defaults, worked out where the heavy libraries are imported; see ``worker``."""
        names = list(cells)
        shares = [
            {name: cells[name] for name in names[i :: self.workers]} for i in range(min(self.workers, len(names)))
        ]
        futures = [self._submit(worker.resolve, share, dry)[0] for share in shares]
        try:
            found = {name: config for future in futures for name, config in future.result().items()}
            return {name: found[name] for name in names}
        except BrokenProcessPool:
            raise InputError("the process that reads the configurations died (killed, or out of memory)") from None

    def run(
        self, jobs: Iterable[Job], protocol: Protocol, on_message: Callable[[dict[str, Any]], None]
    ) -> dict[str, dict[str, Any]]:
        """Carry out ``jobs``, each after its needs, earlier ones first; the result of each by name.

        A result has ``status`` ``ok``, ``failed`` (with ``error``) or ``stopped``.
        """
        waiting = Waiting(jobs, on_message)
        deaths: Counter[str] = Counter()
        running: dict[Future, tuple[Job, ProcessPoolExecutor]] = {}

        def submit_ready() -> None:
            while len(running) < self.workers and (job := waiting.take()) is not None:
                future, pool = self._submit(worker.work, job, protocol)
                running[future] = job, pool
                on_message({"job": job.name, "event": "started"})

        submit_ready()
        while running:
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            self._drain(on_message)
            for future in finished:
                job, pool = running.pop(future)
                try:
                    waiting.end(job, future.result())
                except BrokenProcessPool:
                    deaths[job.name] += 1
                    if self._pool is pool:
                        self._pool = None
                    if deaths[job.name] < ATTEMPTS:
                        waiting.put_back(job)
                        continue
                    error = f"its worker process died twice (killed, or out of memory: then {MEMORY_HINT})"
                    waiting.end(job, {"job": job.name, "status": "failed", "error": error})
            if not self._stop.value:
                submit_ready()
        return waiting.all_results()

    def _drain(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        with contextlib.suppress(queue.Empty):
            while self._messages is not None:
                on_message(self._messages.get_nowait())


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: a worker that was started but never told its work would end with a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[Any] = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: caught.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


def gpu_shares(gpus: list[str], workers: int) -> list[str | None]:
    """What workers see of the GPUs: one each, or several where there are fewer workers; None where there are none.

    A cell that trains on ``n`` GPUs needs ``n`` times fewer workers than there are GPUs.
    """
    each = max(1, len(gpus) // workers)
    return [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)] or [None]


def visible_gpus() -> list[str]:
    """Identifiers of the GPUs this process may use, without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        parts = [part.strip() for part in named.split(",")]
        return list(itertools.takewhile(lambda part: part not in ("", "-1"), parts))
    try:
        return [str(number) for number in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []
