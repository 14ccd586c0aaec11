"""A step is the same however it is spread: over two processes, or over two accumulated batches of one."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import spread_training as spread
import torch

from runs import ENVIRONMENT, ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes did, by method."""
    out = tmp_path_factory.mktemp("two")
    command = [*TORCHRUN, "tests/spread_training.py", str(out), "--trainer.devices=2"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: torch.load(out / f"{name}.pt", weights_only=True) for name in spread.METHODS}


def assert_close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", spread.METHODS)
def test_two_processes_do_what_one_does_in_two_accumulated_batches(name, of_two, tmp_path):
    one, two = spread.train(name, tmp_path, "--trainer.devices=1", "--trainer.accumulate_grad_batches=2"), of_two[name]
    assert len(one["steps"]) == spread.STEPS
    for part in ("steps", "raw", "final", "validation", "logged"):
        assert_close(one[part], two[part])
    last = {f"train/{term}": float(value) for term, value in one["steps"][-1].items()}
    assert_close({term: two["logged"][term] for term in last}, last)


@pytest.fixture(scope="module")
def two_processes():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_model", "cdm_conditional", "joint"])
def test_samples_of_two_processes_are_those_of_one(name, two_processes):
    whole = spread.draw(name, range(16), 8)
    assert len(np.unique(whole.reshape(16, -1), axis=0)) == 16
    halves = [two_processes.submit(spread.draw, name, rows, 8) for rows in (range(8), range(8, 16))]
    dealt = [two_processes.submit(spread.draw, name, rows, 3) for rows in (range(0, 16, 2), range(1, 16, 2))]
    assert np.array_equal(np.concatenate([half.result() for half in halves]), whole)
    # Batches of another size add up in another order.
    for first, images in enumerate(dealt):
        apart = np.abs(images.result().astype(int) - whole[first::2])
        assert apart.max() <= 1
        assert (apart > 0).mean() <= 1e-3
