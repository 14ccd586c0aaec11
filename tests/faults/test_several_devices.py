"""A training in several processes of which one is killed."""

import os
import signal
import threading

import pytest
import torch
from faults import micro

from benchmark.execute.job import carry_out
from benchmark.training.checkpoints import FINAL, checkpoints

ON_TWO = {**micro.SHORT, "trainer.max_steps": 40, "trainer.devices": 2, "trainer.accelerator": "cpu"}
CELL = {"config": "digits/supervised.yaml", "set": ON_TWO}


def train(folder, while_running=lambda: None):
    """Weights and steps of the cell of two processes."""
    suite, jobs = micro.jobs(folder, two=CELL)
    job = next(job for job in jobs if job.cell.name == "two" and job.part == "train")
    beside = threading.Thread(target=while_running)
    beside.start()
    carry_out(job, suite.protocol, lambda *progress: None, lambda: False)
    beside.join()
    return torch.load(job.folder / "checkpoints" / FINAL, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_training_goes_on_after_one_of_its_processes_is_killed_and_ends_the_same(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(micro.ROOT)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    points, victims = tmp_path / "killed/run/two/seed0/checkpoints", []

    def kill_rank_1():
        micro.until(lambda: checkpoints(points))
        victims.extend(pid for pid in micro.descendants(os.getpid()) if micro.rank(pid) == "1")
        os.kill(victims[0], signal.SIGKILL)

    expected, found = train(tmp_path / "whole"), train(tmp_path / "killed", kill_rank_1)
    assert len(victims) == 1
    assert "trying once more: " in capfd.readouterr().err
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
