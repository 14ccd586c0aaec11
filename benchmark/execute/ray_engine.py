"""Engine of many machines: jobs as Ray tasks, which Ray places and retries when a worker or node dies.

All results are in the run's folder, on a file system that all nodes share; Ray itself holds none. Tested with several
nodes on one machine and without GPUs.
"""

import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Read by Ray when it is imported. Without the first, anyone who reaches a cluster's ports can run code on it.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_task_oom_retries", "3")  # ATTEMPTS less one; Ray would try for ever

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmark.errors import MEMORY_HINT, InputError, one_line
from benchmark.execute import worker
from benchmark.execute.local import LocalEngine
from benchmark.execute.ray_board import Board, Line
from benchmark.execute.ray_nodes import Place, probe_node, source_digest
from benchmark.execute.scheduler import Demand, Waiting, demand
from benchmark.suite.class_paths import ROOT
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import Suite
from benchmark.system.surroundings import FOLDERS, working_folder

ATTEMPTS = 4
"""Attempts at a job whose worker or node dies."""


def _work(job: Job, protocol: Protocol, board: Any, place: Place) -> dict[str, Any]:
    """Carry out a job in a Ray worker, whose parent is the node's daemon."""
    line = Line(board)
    line.tell({"job": job.name, "event": "started", "attempt": uuid.uuid4().hex})
    lacking = place.missing()
    if lacking:
        return {"job": job.name, "status": "failed", "error": lacking}
    os.chdir(place.cwd)
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset, which would show every GPU
    with line:
        worker.become(os.getppid(), line, line, threads=1)
        return worker.work(job, protocol, leased=True)


class RayEngine:
    """Jobs on the nodes of a Ray cluster, or of one that is started on this machine.

    Args:
        address: ``auto`` for this machine's cluster, ``ray://HOST:PORT`` or ``HOST:PORT`` for another; by default
            ``$RAY_ADDRESS``, else a cluster of this machine alone, which ends with the run.
    """

    here = False
    """The driver's machine may lack the devices of the nodes."""
    leased = True
    """A node that is cut off may continue a job that is retried on another one."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._stop = False
        self._ours = False
        self._board: Any = None
        self._had = "", 0

    def __enter__(self) -> "RayEngine":
        if ray.is_initialized():
            return self
        self._knock()
        here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if self.address == "local" else {}
        passed = {name: os.environ[name] for name in FOLDERS.values() if name in os.environ}
        inside = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **passed}
        try:
            quiet = {"log_to_driver": False, "logging_level": "error"}
            ray.init(address=self.address, runtime_env={"env_vars": inside}, **quiet, **here)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster at {self.address}: {one_line(error)[:300]}") from error
        self._ours = True
        return self

    def _knock(self) -> None:
        """Check that a named address can be reached; Ray itself would try for minutes."""
        if self.address in ("local", "auto"):
            return
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
        except (OSError, ValueError) as error:
            raise InputError(f"no Ray cluster at {self.address}: {one_line(error)}") from None

    def __exit__(self, *_: Any) -> None:
        if self._ours:
            ray.shutdown()

    def stop(self) -> None:
        """Let running jobs save their state and end."""
        self._stop = True

    @property
    def _nodes(self) -> list[Demand]:
        """Devices of each node."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Demand(int(has.get("GPU", 0)), int(has.get("CPU", 0))) for has in alive]

    @property
    def workers(self) -> int:
        """Number of parallel jobs of one device."""
        nodes = self._nodes
        return max(1, sum(node.gpus for node in nodes) or sum(node.cpus for node in nodes))

    @property
    def hardware(self) -> dict[str, Any]:
        """``cores`` and ``device``, for the environment in results."""
        nodes = self._nodes
        gpus = sum(node.gpus for node in nodes)
        return {"cores": sum(node.cpus for node in nodes), "device": f"{gpus} GPU" if gpus else "CPU"}

    def resolve(self, cells: dict[str, tuple[str, ...]], dry: bool = False) -> dict[str, dict[str, Any]]:
        """Resolve configurations on the driver's machine."""
        with LocalEngine(here=self.here) as local:
            return local.resolve(cells, dry)

    def count(self, suite: Suite, names: list[str]) -> dict[str, Any]:
        """Count costs on the driver's machine."""
        with LocalEngine(here=self.here) as local:
            return local.count(suite, names)

    def ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker process on the driver's machine."""
        with LocalEngine(1, here=self.here) as local:
            return local.ask(work, *arguments)

    def run(
        self,
        jobs: Iterable[Job],
        protocol: Protocol,
        on_message: Callable[[dict[str, Any]], None],
        watch: Callable[[], None] = lambda: None,
    ) -> dict[str, dict[str, Any]]:
        """Carry out jobs, each after its needs; returns results as ``LocalEngine.run`` does.

        Raises:
            InputError: If a job fits no node, or a node lacks files.
        """
        jobs = list(jobs)
        asked = self.check(jobs)
        out = jobs[0].folder.parents[1]
        mark = out / f".{uuid.uuid4().hex}.mark"
        mark.write_text("")
        try:
            named = {variable: os.environ.get(variable) for variable in FOLDERS.values()}
            folders = tuple((name, Path(folder)) for name, folder in named.items() if folder)
            place = Place(out, mark.name, working_folder(), folders, source_digest())
            self._check_nodes(place)
            lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
            self._board = ray.remote(Board).options(**lasting, scheduling_strategy=self._beside()).remote()
            return self._run(jobs, asked, protocol, place, on_message, watch)
        finally:
            mark.unlink(missing_ok=True)

    def check(self, jobs: Iterable[Job]) -> dict[str, Demand]:
        """Devices that each job needs, by name.

        Raises:
            InputError: If a job needs more than any node has; Ray would wait for ever.
        """
        nodes = self._nodes
        asked = {job.name: demand(job, any(node.gpus for node in nodes)) for job in jobs}
        for name, need in asked.items():
            if not any(need.fits(node) for node in nodes):
                most = max(nodes, key=lambda node: (node.gpus, node.cpus), default=Demand(0, 0))
                raise InputError(
                    f"{name} asks for {need}, and no node has as many (the largest has {most}); "
                    "lower trainer.devices or data.init_args.workers, or start a larger node first"
                )
        return asked

    def _check_nodes(self, place: Place) -> None:
        """Check that every node has the folders and source of the run."""
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        probe = ray.remote(num_cpus=0, max_retries=0)(probe_node)
        on = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive]
        answers = [probe.options(scheduling_strategy=one).remote(place) for one in on]
        for name, answer in zip([node["NodeManagerHostname"] for node in alive], answers, strict=True):
            try:
                lacking = ray.get(answer, timeout=120)
            except RayTaskError as error:
                lacking = f"node {name} cannot import the benchmark from {ROOT}: {one_line(error.cause)[:200]}"
            except RayError as error:
                lacking = f"node {name} does not answer: {one_line(error)[:200]}"
            if lacking:
                raise InputError(lacking)

    @staticmethod
    def _beside() -> NodeAffinitySchedulingStrategy:
        """Placement on the driver's node, which lives as long as the driver."""
        return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)

    def _run(
        self,
        jobs: list[Job],
        asked: dict[str, Demand],
        protocol: Protocol,
        place: Place,
        on_message: Callable[[dict[str, Any]], None],
        watch: Callable[[], None],
    ) -> dict[str, dict[str, Any]]:
        waiting = Waiting(jobs, on_message)
        task = ray.remote(_work)
        running: dict[Any, Job] = {}
        starts: defaultdict[str, set[str]] = defaultdict(set)  # attempts by name; messages may come twice
        while True:
            while not self._stop and (job := waiting.take()) is not None:
                need = asked[job.name]
                placed = task.options(num_gpus=need.gpus, num_cpus=need.cpus, max_retries=ATTEMPTS - 1)
                running[placed.remote(job, protocol, self._board, place)] = job
            if not running:
                return waiting.all_results()
            ended, _ = ray.wait(list(running), timeout=0.2)
            watch()
            for message in self._news():
                if message.get("event") == "started":
                    known = starts[message["job"]]
                    if message["attempt"] in known:
                        continue
                    known.add(message["attempt"])
                on_message(message)
            for ref, job in running.items():
                never_placed = self._stop and not starts[job.name]
                if never_placed or len(starts[job.name]) > ATTEMPTS:  # whatever Ray decides
                    ray.cancel(ref, force=not never_placed)
            for ref in ended:
                job = running.pop(ref)
                waiting.end(job, {"job": job.name, **_result(ref, max(1, len(starts[job.name])))})

    def _news(self) -> list[dict[str, Any]]:
        try:
            *had, news = ray.get(self._board.read.remote(self._stop, *self._had), timeout=10)
        except (RayError, GetTimeoutError):
            return []
        self._had = tuple(had)
        return news


def _result(ref: Any, starts: int) -> dict[str, Any]:
    """Result of a task."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        return {"status": "failed", "error": f"{type(error.cause).__name__}: {one_line(error.cause)}"}
    except OutOfMemoryError:
        return {"status": "failed", "error": f"out of memory: its node was full in {starts} attempts; {MEMORY_HINT}"}
    except RayError as error:
        if isinstance(error, TaskCancelledError) and starts <= ATTEMPTS:
            return {"status": "stopped"}
        died = f"its worker or node died {starts} times (killed, lost, or out of memory)"
        return {"status": "failed", "error": f"{died}: {type(error).__name__}"}
