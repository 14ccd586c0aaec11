"""Runs that are told to end: what is done is kept, and nothing goes on behind their back."""

import os
import signal
import time

import pytest
from faults import micro

from benchmark.execute.tabulate import PARTIAL
from benchmark.training.checkpoints import checkpoints, newest_checkpoint

ENDLESS = {"config": "digits/supervised.yaml", "set": {**micro.SHORT, "trainer.max_steps": 100_000}}


@pytest.fixture
def training(copied):
    """A run of the finished suite with one more cell, which trains without end, and where its points are."""

    def training(**settings):
        micro.suite_file(copied, endless={**ENDLESS, "set": {**ENDLESS["set"], **settings}})
        process, points = micro.started(copied), copied / "run/endless/seed0/checkpoints"
        micro.until(lambda: newest_checkpoint(points), process)
        return process, points

    return training


@pytest.mark.slow
def test_a_run_whose_processes_are_all_terminated_saves_its_state_and_ends(training, copied):
    process, points = training(**{"checkpoint_every": 20})
    before, start = newest_checkpoint(points), time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    code, _, errors = micro.ended(process)
    assert time.monotonic() - start < 60  # a few seconds, and as many times more on a busy machine
    assert code == 143, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[0] == "stopping: running jobs save their state (again to stop at once)"
    micro.until(lambda: not micro.session(process.pid), seconds=20)
    after = newest_checkpoint(points)
    assert after.name > before.name
    assert int(after.stem[5:]) % 20  # not one of those that are saved anyway
    assert not (copied / "run/owner.json").exists()
    told = (copied / "run" / PARTIAL).read_text()
    assert told.startswith("**Incomplete**: not finished are endless (seed 0).\n")
    assert "| score_model |" in told
    assert "| endless |" in told
    assert not (copied / "run/results.md").exists()


@pytest.mark.slow
def test_a_second_interrupt_ends_a_run_at_once_with_its_last_point_whole(training):
    # Steps of several seconds, in which the first one waits.
    process, points = training(
        **{"checkpoint_every": 1, "data.init_args.batch_size": 6400, "trainer.accumulate_grad_batches": 50}
    )
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    code, _, errors = micro.ended(process)
    assert code == 130
    assert errors == "stopping: running jobs save their state (again to stop at once)\n"
    micro.until(lambda: not micro.session(process.pid), seconds=20)
    assert newest_checkpoint(points) == checkpoints(points)[-1]


@pytest.mark.slow
def test_a_run_whose_cell_trains_in_two_processes_ends_all_of_them(training):
    process, points = training(**{"trainer.devices": 2, "trainer.accelerator": "cpu", "checkpoint_every": 50})
    sessions = set(micro.descendants(process.pid).values())
    assert len(sessions) > 1  # the training has one of its own, which the signal does not reach
    before = newest_checkpoint(points)
    os.killpg(process.pid, signal.SIGTERM)
    code, _, errors = micro.ended(process)
    assert code == 143, errors
    assert newest_checkpoint(points).name > before.name
    for leader in sessions:
        micro.until(lambda leader=leader: not micro.session(leader), seconds=20)
