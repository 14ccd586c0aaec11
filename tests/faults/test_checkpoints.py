"""Checkpoints that are damaged, half written or forsaken: what is whole is used, what is not is said."""

import multiprocessing
import os
import signal
import tempfile
import time

import pytest
import torch
from faults import micro

from benchmark import cli
from benchmark.errors import InputError
from benchmark.execute.job import carry_out
from benchmark.suite import stages
from benchmark.training.checkpoints import FINAL, AtomicCheckpointIO, checkpoints, newest_checkpoint, resume_point


@pytest.fixture
def training(tmp_path):
    """A training that was stopped with two resume points, how to go on with it, and where they are."""
    suite, jobs = micro.jobs(tmp_path)
    job = next(job for job in jobs if job.cell.name == "reference_classifier" and job.part == "train")
    points = job.folder / "checkpoints"

    def go_on(stop=lambda: False):
        return carry_out(job, suite.protocol, lambda *progress: None, stop)

    with pytest.raises(Exception, match="stopped at step 7"):
        go_on(lambda: len(checkpoints(points)) == 2)
    assert [path.name for path in checkpoints(points)] == ["step=00000006.ckpt", "step=00000007.ckpt"]
    return go_on, points


def equal_weights(points, whole):
    """Whether a training ended at the weights of the unbroken one."""
    expected = torch.load(whole / "run/reference_classifier/seed1000/checkpoints" / FINAL, weights_only=True)
    found = torch.load(points / FINAL, weights_only=True)["state_dict"]
    return all(torch.equal(value, found[name]) for name, value in expected["state_dict"].items())


@pytest.mark.parametrize("damage", [micro.truncate, micro.flip_a_byte])
def test_the_point_before_a_damaged_one_is_used_with_a_warning_and_ends_the_same(training, whole, capfd, damage):
    go_on, points = training
    older, newer = checkpoints(points)
    damage(newer)
    go_on()
    assert capfd.readouterr().err == f"warning: {newer} is damaged; training goes on from {older.name}\n"
    assert equal_weights(points, whole)


def test_a_point_that_no_memory_holds_is_damaged_unread(training):
    _, points = training
    older, newer = checkpoints(points)
    os.truncate(newer, 2**42)
    assert newest_checkpoint(points) == older


def test_a_training_does_not_start_over_where_all_its_points_are_damaged(training):
    go_on, points = training
    for path in checkpoints(points):
        micro.flip_a_byte(path)
    told = f"all resume points in {points} are damaged; delete that folder to train from the start"
    with pytest.raises(InputError) as refused:
        go_on()
    assert str(refused.value) == told
    assert len(checkpoints(points)) == 2


def fit(capsys, root, *words):
    """Exit code and error of ``lightning fit``."""
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["fit", "--config=configs/digits/supervised.yaml", f"--trainer.default_root_dir={root}",
             "--trainer.max_steps=12", "--trainer.logger=false", "--trainer.enable_progress_bar=false", *words]
        )  # fmt: skip
    return end.value.code, capsys.readouterr().err


def test_a_fit_refuses_what_would_lose_a_training_in_one_line(training, capsys, monkeypatch):
    monkeypatch.chdir(micro.ROOT)
    _, points = training
    root = points.parent
    told = f"error: {points} holds resume points of a training that has not ended: go on with --ckpt_path=last, "
    assert fit(capsys, root) == (2, f"{told}or choose another folder with --trainer.default_root_dir\n")
    older, newer = checkpoints(points)
    micro.flip_a_byte(newer)
    told = f"error: {newer} is damaged: it is not what was written; use an earlier one or train again\n"
    assert fit(capsys, root, f"--ckpt_path={newer}") == (2, told)
    micro.truncate(older)
    told = f"error: all resume points in {points} are damaged; delete that folder to train from the start\n"
    assert fit(capsys, root, "--ckpt_path=last") == (2, told)


BROKEN = {
    "raw weights": lambda state: state["current_model_state"].update({"classifier.network.head.weight": [1.0]}),
    "optimizer": lambda state: state["optimizer_states"][0].update(param_groups=[{}]),
    "schedule": lambda state: state.update(lr_schedulers=[3]),
    "loops": lambda state: state["loops"].update(fit_loop={"epoch_loop.batch_progress": 3}),
    "version": lambda state: state.update({"pytorch-lightning_version": 3}),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_point_whose_state_is_not_as_it_was_written_is_refused_in_one_line(training, capsys, monkeypatch, change):
    monkeypatch.chdir(micro.ROOT)
    _, points = training
    state = torch.load(checkpoints(points)[-1], weights_only=True)
    change(state)
    torch.save(state, points.parent / "other.ckpt")
    code, told = fit(capsys, points.parent / "elsewhere", f"--ckpt_path={points.parent / 'other.ckpt'}")
    assert (code, told.count("\n")) == (2, 1), told
    assert told.startswith(f"error: {points.parent / 'other.ckpt'} cannot be restored (")
    assert len(told) < 400


def test_points_are_kept_until_the_end_of_training_is_on_record(training, whole, monkeypatch):
    go_on, points = training

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            go_on()
    assert (points / FINAL).is_file()
    assert resume_point(points).name == "step=00000009.ckpt"
    go_on()
    assert checkpoints(points) == []
    assert equal_weights(points, whole)


def test_a_clock_that_is_set_back_changes_neither_the_newest_point_nor_a_duration(training, whole, monkeypatch):
    go_on, points = training
    _, newer = checkpoints(points)
    os.utime(newer, (0, 0))
    assert newest_checkpoint(points) == newer
    now = iter(range(2**31, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(now))
    go_on()
    found = stages.read_manifest(points.parent / "stages" / "train.json")
    assert 0 < found["seconds"] < 100
    assert 0 < found["cpu_seconds"] < 100
    assert equal_weights(points, whole)


def test_a_kill_while_writing_leaves_the_point_before_whatever_the_temporary_folder(tmp_path, monkeypatch):
    elsewhere = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    monkeypatch.setenv("TMPDIR", elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", None)
    before, path = tmp_path / "step=00000001.ckpt", tmp_path / "step=00000002.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, before)
    large = torch.zeros(100 * 2**20)

    def write():
        AtomicCheckpointIO().save_checkpoint({"step": 2, "weight": large}, path)

    writer = multiprocessing.get_context("fork").Process(target=write)
    writer.start()
    micro.until(lambda: any(p.stat().st_size > 2**20 for p in tmp_path.glob(".*.tmp")))
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert os.listdir(elsewhere) == []
    os.rmdir(elsewhere)
    assert resume_point(tmp_path) == before
    assert AtomicCheckpointIO().load_checkpoint(before) == {"step": 1}
