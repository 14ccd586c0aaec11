"""Attempts at a job: the newest alone publishes, and what it says of itself can be read."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from surroundings import elsewhere

from benchmark.errors import InputError
from benchmark.execute import journal, worker
from benchmark.execute import lease as leases
from benchmark.execute.job import carry_out
from benchmark.execute.journal import progress_path
from benchmark.execute.lease import Lease, Superseded, clear, lease_path
from benchmark.execute.scheduler import Demand, Waiting, demand
from benchmark.run import parser as run_parser
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from runs import job

ROOT = Path(__file__).resolve().parents[3]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(autouse=True)
def short_pause(monkeypatch):
    monkeypatch.setattr(leases, "PAUSE", 0.01)


def test_a_newer_attempt_takes_the_lease_and_the_older_one_may_not_go_on(tmp_path):
    old = Lease(tmp_path, "train")
    old.confirm()
    new = Lease(tmp_path, "train")
    new.confirm()
    with pytest.raises(Superseded, match=f"another attempt .* by process {os.getpid()} on {os.uname().nodename}"):
        old.confirm()
    with pytest.raises(Superseded):
        old.check()
    new.end({"job": "a", "status": "ok"})
    assert not lease_path(tmp_path, "train").exists()
    with pytest.raises(Superseded, match="is gone: another attempt at this job has ended, or it was deleted"):
        old.confirm()


def test_the_older_attempt_leaves_what_the_newer_one_wrote(tmp_path):
    old, new = Lease(tmp_path, "train"), Lease(tmp_path, "train")
    old.end({"job": "a", "status": "failed", "error": "x"})
    assert read(lease_path(tmp_path, "train"))["attempt"] == new.attempt
    assert "error" not in read(progress_path(tmp_path, "train"))


def test_attempts_at_training_and_evaluation_do_not_meet(tmp_path):
    train, evaluate = Lease(tmp_path, "train"), Lease(tmp_path, "evaluate")
    train.confirm(), evaluate.confirm()


def test_signs_of_life_say_where_the_job_is_and_an_end_that_was_not_good_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "HEARTBEAT", 0.02)
    attempt = Lease(tmp_path, "train")
    attempt.report("train", 25, 600)
    end = time.monotonic() + 20
    while read(progress_path(tmp_path, "train")).get("done") != 25:
        assert time.monotonic() < end
        time.sleep(0.02)
    attempt.end({"job": "a", "status": "failed", "error": "loss is not finite"})
    told = read(progress_path(tmp_path, "train"))
    assert (told["stage"], told["total"], told["status"]) == ("train", 600, "failed")
    assert told["error"] == "loss is not finite"
    assert not lease_path(tmp_path, "train").exists()


class Messages(list):
    put = list.append


class Flag:
    value = False


def test_a_zombie_does_not_publish_what_it_computed(tmp_path, monkeypatch):
    """While it computes, the job is given to another attempt."""

    def computing(self, stage):
        (tmp_path / "result").write_text("of the zombie")
        self.newer = Lease(tmp_path, "train")
        return {"outputs": ["result"]}

    monkeypatch.setattr("benchmark.execute.job._Training.do", computing)
    monkeypatch.setattr(worker, "_context", {"messages": Messages(), "stop": Flag(), "threads": 1})
    work = job(folder=tmp_path)
    result = worker.work(work, Protocol(), leased=True)
    assert result["status"] == "failed"
    assert result["error"].startswith("another attempt at this job was started by process ")
    assert not work.finished
    assert not Stage("train", "key").manifest(tmp_path).exists()
    assert lease_path(tmp_path, "train").exists()  # of the newer attempt


def test_an_attempt_that_is_the_newest_publishes(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.execute.job._Training.do", lambda self, stage: {"outputs": []})
    monkeypatch.setattr(worker, "_context", {"messages": Messages(), "stop": Flag(), "threads": 1})
    work = job(folder=tmp_path)
    assert worker.work(work, Protocol(), leased=True) == {"job": "a/seed0/train", "status": "ok"}
    assert work.finished
    assert list((tmp_path / "attempt").iterdir()) == []


def test_a_folder_that_cannot_be_written_fails_the_job_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "attempt").write_text("a file")
    monkeypatch.setattr(worker, "_context", {"messages": Messages(), "stop": Flag(), "threads": 1})
    result = worker.work(job(folder=tmp_path), Protocol(), leased=True)
    assert result["error"].startswith(f"cannot write {tmp_path}")
    assert "File exists" in result["error"]


def test_a_lease_that_cannot_be_read_for_a_moment_is_not_lost(tmp_path, monkeypatch):
    held = Lease(tmp_path, "train")

    def away(path):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(leases, "read_json", away)
        with pytest.raises(OSError, match="Stale"):
            held.confirm()
    held.confirm()
    held.check()
    held.end({"status": "ok"})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "{}", '{"attempt": 3}', "\xff", "[" * 100_000], ids=lambda text: text[:14]
)
def test_a_damaged_lease_ends_the_attempt_and_says_so(tmp_path, content):
    held = Lease(tmp_path, "train")
    held.path.write_text(content, encoding="latin-1")
    with pytest.raises(Superseded, match=r"train\.json is damaged: it does not say whether another attempt"):
        held.confirm()
    held.end({"status": "ok"})


def test_a_lease_that_is_damaged_for_a_moment_is_not_lost(tmp_path, monkeypatch):
    held = Lease(tmp_path, "train")
    whole = held.path.read_text()
    held.path.write_text("")
    monkeypatch.setattr(leases.time, "sleep", lambda seconds: held.path.write_text(whole))
    held.confirm()
    held.check()


def test_a_run_whose_folder_is_deleted_says_so(tmp_path):
    folder = tmp_path / "run/a/seed0"
    held = Lease(folder, "train")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(Superseded, match=f"the run's folder is gone: {folder} was deleted or moved"):
        held.confirm()
    held.end({"status": "failed", "error": "x"})
    assert not (tmp_path / "run").exists()


def test_an_attempt_whose_lease_a_new_run_cleared_ends(tmp_path):
    held = Lease(tmp_path, "train")
    clear(tmp_path, "train")
    with pytest.raises(Superseded, match="is gone"):
        held.confirm()
    assert list((tmp_path / "attempt").iterdir()) == []


def test_a_job_of_one_machine_holds_no_lease(tmp_path, monkeypatch):
    def computing(self, stage):
        shutil.rmtree(tmp_path / "attempt", ignore_errors=True)
        assert not (tmp_path / "attempt").exists()
        return {"outputs": []}

    monkeypatch.setattr("benchmark.execute.job._Training.do", computing)
    monkeypatch.setattr(worker, "_context", {"messages": Messages(), "stop": Flag(), "threads": 1})
    assert worker.work(job(folder=tmp_path), Protocol(), leased=False) == {"job": "a/seed0/train", "status": "ok"}
    assert not (tmp_path / "attempt").exists()


def test_a_lease_is_kept_while_libraries_change_the_working_folder(tmp_path, monkeypatch):
    """A parser changes it to that of the configuration for a while."""
    monkeypatch.setattr(journal, "HEARTBEAT", 0.001)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in ROOT.joinpath("configs/digits").iterdir())
    options = run_parser().parse_args(["--suite", "digits", "--out", "run"])
    held = Lease(options.out / "a/seed0", "train")
    with elsewhere(ROOT / "configs/digits"):
        for done in range(200):
            held.report("train", done, 200)
            held.confirm()
            time.sleep(0.002)
    held.check()
    assert read(tmp_path / "run/a/seed0/attempt/train.progress.json")["stage"] == "train"
    held.end({"status": "ok"})
    assert sorted(path.name for path in ROOT.joinpath("configs/digits").iterdir()) == before


def test_a_stage_is_confirmed_after_its_work_and_before_its_record(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "benchmark.execute.job._Training.do", lambda self, stage: seen.append("work") or {"outputs": []}
    )

    def confirm():
        seen.append(Stage("train", "key").manifest(tmp_path).exists())
        raise InputError("no")

    with pytest.raises(InputError):
        carry_out(job(folder=tmp_path), Protocol(), lambda *progress: None, lambda: False, confirm)
    assert seen == ["work", False]


def test_a_worker_forgets_the_launch_that_it_was_started_in(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_JOB_ID", "MASTER_ADDR", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setattr(worker, "_context", {})
    monkeypatch.setattr(worker, "end_with", lambda process: None)
    worker.become(os.getppid(), Messages(), Flag(), threads=1)
    assert not [name for name in os.environ if name.startswith(worker.FOREIGN)]


# What a job asks for, and when it may start


@pytest.mark.parametrize(
    ("trainer", "on_gpus", "gpus", "cpus"),
    [
        ({"devices": 1, "accelerator": "auto"}, True, 1, 1),
        ({"devices": 4, "accelerator": "auto"}, True, 4, 4),
        ({"devices": 4, "accelerator": "auto"}, False, 0, 4),
        ({"devices": 4, "accelerator": "cpu"}, True, 0, 4),
        ({"devices": "2", "accelerator": "gpu"}, False, 2, 2),
        ({"devices": [0, 2, 3]}, True, 3, 3),
        ({"devices": "0,1"}, True, 2, 2),
        ({"devices": "auto"}, True, 1, 1),
        ({"devices": -1}, True, 1, 1),
        ({}, False, 0, 1),
    ],
)
def test_a_training_asks_for_its_trainers_devices(trainer, on_gpus, gpus, cpus):
    assert demand(job(trainer=trainer), on_gpus) == Demand(gpus, cpus)


def test_an_evaluation_asks_for_one_device_and_files_are_read_beside_a_gpu():
    trainer, data = {"devices": 8}, {"init_args": {"workers": 3}}
    assert demand(job(part="evaluate", trainer=trainer, data=data), True) == Demand(1, 4)
    assert demand(job(trainer=trainer, data=data), True) == Demand(8, 32)
    assert demand(job(trainer=trainer, data=data), False) == Demand(0, 8)


def test_a_job_starts_when_its_needs_have_ended_well_and_what_it_waits_for_has_ended():
    first, second = job("a"), job("b")
    third = job("c", "evaluate", needs=(first.name,), after=(second.name,))
    told = []
    waiting = Waiting([third, first, second], told.append)
    assert [waiting.take(), waiting.take(), waiting.take()] == [first, second, None]
    waiting.end(first, {"job": first.name, "status": "ok"})
    assert waiting.take() is None
    waiting.end(second, {"job": second.name, "status": "failed", "error": "x"})
    assert waiting.take() is third
    assert [message["event"] for message in told] == ["ok", "failed"]


def test_what_needs_a_failed_job_fails_with_its_reason_and_the_rest_stays_stopped():
    train, evaluate = job("a"), job("a", "evaluate", needs=("a/seed0/train",))
    other = job("b", "evaluate", needs=("a/seed0/train",))
    late = job("c", needs=("d/seed0/train",))
    waiting = Waiting([train, evaluate, other, late, job("d")], lambda message: None)
    waiting.take()
    waiting.end(train, {"job": train.name, "status": "failed", "error": "diverged"})
    assert waiting.take().name == "d/seed0/train"
    results = waiting.all_results()
    assert results[evaluate.name]["error"] == "diverged"
    assert results[other.name]["error"] == "needs a/seed0/train, which failed: diverged"
    assert results[late.name] == {"job": late.name, "status": "stopped"}
