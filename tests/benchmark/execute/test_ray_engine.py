"""Suites on Ray: the records of one machine, nodes that come and go, and what could never be placed is refused."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (at Ray's own, 15, its jobs wait for every other test)
pytest.importorskip("benchmark.execute.ray_engine")  # before Ray, which reads settings when it is imported

import ray
from ray.cluster_utils import Cluster

from benchmark.errors import InputError
from benchmark.execute.ray_board import Board
from benchmark.execute.ray_engine import ATTEMPTS, RayEngine
from benchmark.execute.ray_nodes import Place, source_digest
from benchmark.run import main
from benchmark.status import look
from benchmark.training.checkpoints import checkpoints
from runs import ENVIRONMENT, ROOT, SHORT, job, started, until

COSTS = ("cpu_seconds", "throughput")


def suite(folder, **cells):
    """A suite of two cells, of which one is fitted in closed form, and more."""
    path = folder / "pair.yaml"
    spec = {
        "reference": "reference_classifier",
        "protocol": {"samples": 24, "noisy_draws": 1, "levels": 2, "batch": 100, "denoise_times": [0.5]},
        "cells": {
            "reference_classifier": {"config": "digits/supervised.yaml", "seed": 1000, "set": SHORT},
            "gaussian": {"config": "digits/gaussian.yaml", "floor": True},
            **cells,
        },
    }
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def results(out):
    """A table, without what its numbers cost."""
    table = json.loads((out / "results.json").read_text())
    kept = [record for record in table["records"] if not record["metric"].startswith(COSTS)]
    return {
        **table,
        "records": [{k: v for k, v in r.items() if k not in ("seconds", "peak_memory_bytes")} for r in kept],
    }


@pytest.fixture(scope="module")
def one_node():
    """A cluster of one node with two cores, in this process."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
             _node_ip_address="127.0.0.1",
             runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}})  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_suite_of_two_cells_is_complete(one_node, tmp_path, capfd):
    out = tmp_path / "run"
    assert main(["--suite", str(suite(tmp_path)), "--out", str(out), "--engine", "ray"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "raylet" not in said.out
    assert look(out).complete
    assert {record["cell"] for record in results(out)["records"]} == {"reference_classifier", "gaussian"}
    assert not list(out.glob("*.mark"))


@pytest.mark.parametrize(
    ("trainer", "asks"),
    [
        ({"devices": 3}, "0 GPUs and 3 CPUs"),
        ({"devices": 1, "accelerator": "gpu"}, "1 GPUs and 1 CPUs"),
    ],
)
def test_a_job_that_fits_no_node_is_refused_before_anything_is_run(one_node, trainer, asks):
    told = f"a/seed0/train asks for {asks}, and no node has as many \\(the largest has 0 GPUs and 2 CPUs\\)"
    with RayEngine() as engine, pytest.raises(InputError, match=told):
        engine.check([job(trainer=trainer)])


def test_a_node_says_what_it_lacks(tmp_path):
    (tmp_path / "mark").write_text("")
    assert Place(tmp_path, "mark", tmp_path, (("DIFFCLASS_DATA", tmp_path),), source_digest()).missing() == ""
    assert "does not see the run's folder" in Place(tmp_path, "other", tmp_path, (), source_digest()).missing()
    assert "has no working folder" in Place(tmp_path, "mark", tmp_path / "x", (), source_digest()).missing()
    gone = Place(tmp_path, "mark", tmp_path, (("DIFFCLASS_DATA", tmp_path / "x"),), source_digest())
    assert "has no DIFFCLASS_DATA" in gone.missing()
    assert "has other source" in Place(tmp_path, "mark", tmp_path, (), "").missing()


def test_news_stay_until_the_driver_has_them_and_are_told_once():
    board = Board()
    board.tell({"event": 1}), board.tell({"event": 2})
    assert board.read(False, "", 0)[2] == board.read(False, "", 0)[2] == [{"event": 1}, {"event": 2}]
    name, had, _ = board.read(False, "", 0)
    board.tell({"event": 3})
    assert board.read(False, name, had) == (name, 3, [{"event": 3}])
    assert board.read(True, name, 3) == (name, 3, [])
    board.tell({"event": 4})
    assert board.read(True, name, 2) == board.read(True, name, 3) == (name, 4, [{"event": 4}])  # an old one, made again
    assert board.tell(None) is True
    again = Board()  # started anew, with news of its own
    again.tell({"event": 5})
    assert again.read(False, name, 3)[2] == [{"event": 5}]


@pytest.mark.slow
def test_without_ray_one_line_names_the_extra(tmp_path):
    code = "import sys; sys.modules['ray'] = None\nfrom benchmark.run import main\nsys.exit(main(sys.argv[1:]))"
    words = ["--suite", "digits", "--engine", "ray", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *words], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --engine ray needs Ray; install it with: pip install -c constraints.txt -e '.[ray]'\n"


@pytest.mark.slow
def test_records_are_those_of_one_machine(tmp_path):
    for engine in ("local", "ray"):
        process = started(tmp_path, "--suite", suite(tmp_path), "--out", engine, "--engine", engine)
        output, errors = process.communicate(timeout=400)
        assert (process.returncode, errors) == (0, ""), output
    assert results(tmp_path / "ray") == results(tmp_path / "local")


@pytest.mark.slow
def test_a_failed_cell_and_an_interrupt_end_as_on_one_machine(tmp_path):
    wild = {"config": "digits/supervised.yaml", "set": {**SHORT, "optimizer.init_args.lr": 1e30}}
    long = {"config": "digits/supervised.yaml", "set": {**SHORT, "trainer.max_steps": 100000, "checkpoint_every": 1}}
    process = started(tmp_path, "--suite", suite(tmp_path, wild=wild, long=long), "--out", "run", "--engine", "ray")
    out = tmp_path / "run"
    until(lambda: (out / "plan.json").is_file(), process)
    until(lambda: checkpoints(out / "long" / "seed0" / "checkpoints"), process)
    until(lambda: {at.job.name: at.state for at in look(out).jobs}["wild/seed0/train"] == "failed", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes as well
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "failed   wild/seed0/train: diverged: loss is not finite at step 2: classify" in output
    assert [line.split(";")[0].split(":")[0] for line in errors.splitlines()] == ["stopping", "stopped"]
    assert {at.job.name: at.state for at in look(out).jobs}["long/seed0/train"] == "stopped"


def limited():
    """Whether this machine's memory is not all ours."""
    paths = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    limits = [path.read_text().strip() for path in paths if path.is_file()]
    return any(limit != "max" and int(limit) < 2**60 for limit in limits)


@pytest.mark.slow
def test_a_worker_that_runs_out_of_memory_is_tried_again_and_then_fails_with_the_reason(tmp_path, much_memory):
    large = {"config": "digits/supervised.yaml", "set": {**SHORT, "data.init_args.batch_size": 1_000_000}}
    there = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    if there["MemAvailable"] < 8 * 2**20 or limited():
        pytest.skip("needs 8 GiB that no other limit takes away")
    share = 1 - (there["MemAvailable"] - 5 * 2**20) / there["MemTotal"]
    limits = {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "50"}
    words = ("--suite", suite(tmp_path, large=large), "--out", "run", "--engine", "ray")
    process = started(tmp_path, *words, env={**ENVIRONMENT, **limits})
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 4, errors
    (line,) = (line for line in errors.splitlines() if line.startswith("failed: large/seed0/train"))
    assert f"out of memory: its node was full in {ATTEMPTS} attempts; train with a smaller data.init_args" in line
    assert output.count("started  large/seed0/train") == ATTEMPTS
    assert {at.job.name: at.state for at in look(tmp_path / "run").jobs}["gaussian/seed0/evaluate"] == "done"


@pytest.mark.slow
def test_a_job_that_asks_for_too_much_ends_the_run_with_one_line(tmp_path):
    large = {
        "config": "digits/supervised.yaml",
        "set": {**SHORT, "trainer.devices": 1000, "trainer.accelerator": "cpu"},
    }
    process = started(tmp_path, "--suite", suite(tmp_path, large=large), "--out", "run", "--engine", "ray")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.startswith("error: large/seed0/train asks for 0 GPUs and 1000 CPUs, and no node has as many")
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_no_cluster_at_an_address_ends_the_run_with_one_line(tmp_path):
    process = started(tmp_path, "--suite", suite(tmp_path), "--engine", "ray", "--address", "127.0.0.1:1")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.startswith("error: no Ray cluster at 127.0.0.1:1: ")
    assert errors.count("\n") == 1


@pytest.fixture
def cluster():
    """A head without devices of its own, and no other node yet."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_suite_outlives_a_node_and_finishes_on_another_without_doing_anything_twice(cluster, tmp_path):
    """Two nodes of one GPU each, which is a number to Ray and not there."""
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    long = {"config": "digits/supervised.yaml", "set": {**SHORT, "trainer.max_steps": 400, "checkpoint_every": 4}}
    path = suite(tmp_path, long=long)
    process = started(tmp_path, "--suite", path, "--out", "run", "--engine", "ray", "--address", cluster.address)
    out = tmp_path / "run"
    until(lambda: (out / "gaussian" / "seed0" / "stages" / "train.json").is_file(), process)
    until(lambda: checkpoints(out / "long" / "seed0" / "checkpoints"), process)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/seed*/stages/*.json")}
    held = json.loads((out / "long" / "seed0" / "attempt" / "train.json").read_text())
    (lost,) = [node for node in nodes if _is_on(node, held["pid"])]
    cluster.remove_node(lost, allow_graceful=False)
    until(lambda: not Path(f"/proc/{held['pid']}").exists(), process, seconds=20)
    cluster.add_node(num_cpus=1, num_gpus=1)
    output, errors = process.communicate(timeout=400)
    assert (process.returncode, errors) == (0, ""), output
    assert output.count("started  long/seed0/train") == 2
    assert look(out).complete
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    resumed = json.loads((out / "long" / "seed0" / "stages" / "train.json").read_text())
    assert resumed["steps"] == 400


def _is_on(node, pid):
    """Whether a process was started by a node's daemon."""
    daemon = node.all_processes["raylet"][0].process.pid
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == daemon
    return False
