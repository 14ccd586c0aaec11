"""A suite's training on several devices: processes of their own, which are told to stop, go on and fail as one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark.errors import InputError, Stopped
from benchmark.execute.job import carry_out
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell
from benchmark.system.gpus import gpu_shares
from benchmark.training import torchrun
from benchmark.training.build import build
from benchmark.training.checkpoints import FINAL, checkpoints, newest_checkpoint

STEPS = 40


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(torchrun.ROOT)


def job(folder, *more, config="supervised"):
    words = (
        f"--config=configs/digits/{config}.yaml", f"--trainer.default_root_dir={folder}",
        f"--trainer.max_steps={STEPS}", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false", *more,
    )  # fmt: skip
    cell = Cell("cell", config=f"digits/{config}.yaml")
    return Job(cell, 0, "train", folder, (Stage("train", "key"),), folder, arguments=words, steps=STEPS)


@pytest.mark.slow
def test_a_cell_of_two_devices_stops_goes_on_and_ends_at_what_one_device_accumulates(tmp_path):
    work, told = job(tmp_path / "cell", "--checkpoint_every=4"), []
    points = tmp_path / "cell" / "checkpoints"
    with pytest.raises(Stopped, match="stopped at step"):
        carry_out(work, Protocol(), lambda *progress: told.append(progress), stop=lambda: bool(checkpoints(points)))
    assert checkpoints(points)
    assert not work.finished
    carry_out(work, Protocol(), lambda *progress: told.append(progress), stop=lambda: False)
    assert work.finished
    manifest = json.loads((tmp_path / "cell" / "stages" / "train.json").read_text())
    assert manifest["steps"] == STEPS
    assert manifest["seconds"] > 0
    assert manifest["cpu_seconds"] > 0
    assert manifest["peak_memory_bytes"] > 2**20
    assert ("train", 25, STEPS) in [progress[:3] for progress in told]
    assert sorted(p.name for p in (tmp_path / "cell").iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "splits.npz",
        "stages",
    ]

    assert "Messages" not in (tmp_path / "cell" / "config.yaml").read_text()  # of the processes, not of the training

    words = [word for word in work.arguments if "devices" not in word and "root_dir" not in word]
    built = build([*words, f"--trainer.default_root_dir={tmp_path / 'one'}", "--trainer.accumulate_grad_batches=2"])
    built.trainer.fit(built.model, datamodule=built.datamodule)
    one, two = (
        torch.load(tmp_path / run / "checkpoints" / FINAL, weights_only=True)["state_dict"] for run in ("one", "cell")
    )
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_the_cell_with_step_and_term(tmp_path):
    work = job(tmp_path / "cell", "--optimizer.init_args.lr=1e30")
    with pytest.raises(FloatingPointError, match="loss is not finite at step 2: classify"):
        carry_out(work, Protocol(), lambda *progress: None, stop=lambda: False)


@pytest.mark.slow
def test_the_processes_do_not_outlive_the_one_that_started_them(tmp_path):
    work = job(tmp_path / "cell", "--checkpoint_every=1")
    code = (
        "from benchmark.training.torchrun import fit; from pathlib import Path;"
        f"fit({[*work.arguments, '--trainer.max_steps=100000']!r}, 2, Path({str(tmp_path)!r}), print, lambda: False)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    points = tmp_path / "cell" / "checkpoints"
    while not checkpoints(points):
        assert parent.poll() is None
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(3)
    newest = checkpoints(points)
    time.sleep(2)
    assert checkpoints(points) == newest


@pytest.mark.slow
def test_a_terminated_group_of_lightnings_own_processes_saves_its_state_and_ends(tmp_path):
    """Its own handler of the signal would hang there."""
    words = job(tmp_path, "--trainer.max_steps=100000", "--checkpoint_every=4").arguments
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.cli", "fit", *words],
        env=torchrun._environment(), start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    points = tmp_path / "checkpoints"
    while newest_checkpoint(points) is None:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    before = newest_checkpoint(points)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert newest_checkpoint(points).name > before.name
    stopping, stopped = errors.splitlines()
    assert stopping.startswith("stopping: the state is saved after this step")
    assert stopped == f"error: stopped at step {int(newest_checkpoint(points).stem[5:])}; go on with " + (
        f"--ckpt_path={newest_checkpoint(points)}"
    )


@pytest.mark.parametrize(
    ("gpus", "workers", "shares"),
    [
        ([], 2, [None]),
        (["0", "1"], 2, ["0", "1"]),
        (["0", "1"], 4, ["0", "1"]),
        (["0", "1", "2", "3"], 2, ["0,1", "2,3"]),
        (["4", "5", "6"], 2, ["4", "5", "6"]),
        (["0", "1"], 1, ["0,1"]),
    ],
)
def test_fewer_workers_than_gpus_see_several_each(gpus, workers, shares):
    assert gpu_shares(gpus, workers) == shares


def test_one_device_is_the_default():
    assert build(["--config=configs/digits/supervised.yaml", "--trainer.logger=false"]).trainer.num_devices == 1


def test_several_machines_are_refused(tmp_path):
    work = job(tmp_path, "--trainer.num_nodes=2")
    with pytest.raises(InputError, match=r"trainer\.num_nodes must be 1 in a suite, got 2"):
        carry_out(work, Protocol(), lambda *progress: None, stop=lambda: False)


@pytest.mark.parametrize(
    ("last", "stopping", "kind", "text"),
    [
        ({"error": "Stopped", "text": "stopped at step 3"}, True, Stopped, "stopped at step 3"),
        ({"done": 25}, True, Stopped, "stopped"),
        ({"error": "FloatingPointError", "text": "loss"}, False, FloatingPointError, "loss"),
        ({"error": "InputError", "text": "cannot write"}, False, InputError, "cannot write"),
        ({"error": "KeyError", "text": "'x'"}, False, RuntimeError, "KeyError: 'x'"),
        ({"error": "RuntimeError", "text": "x"}, False, RuntimeError, "x"),
        ({}, False, RuntimeError, "the 2 processes of the training ended with exit code -9; its log says more"),
    ],
)
def test_the_last_message_says_what_ended_the_processes(last, stopping, kind, text):
    error = torchrun._error(last, stopping, -9, 2)
    assert type(error) is kind
    assert str(error) == text


def test_messages_are_read_as_they_come_and_only_whole_ones(tmp_path):
    path = tmp_path / "messages"
    lines = torchrun._lines(path)
    assert next(lines) is None
    path.write_text('{"done": 1}\n{"do')
    assert [next(lines), next(lines)] == [{"done": 1}, None]
    path.write_text('{"done": 1}\n{"done": 2}\n')
    assert [next(lines), next(lines)] == [{"done": 2}, None]


def test_the_environment_of_another_launch_is_not_passed_on(monkeypatch):
    for name in ("SLURM_JOB_ID", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    found = torchrun._environment()
    assert not [name for name in found if name.startswith(torchrun.FOREIGN)]
    assert Path(found["PYTHONPATH"].split(":")[0]) == torchrun.ROOT
