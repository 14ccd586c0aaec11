"""Numbers that are not finite end a cell at once, and no other."""

import queue
from types import SimpleNamespace

import pytest
from faults import micro

from benchmark.execute import worker
from benchmark.training.checkpoints import checkpoints


@pytest.fixture
def outcomes(monkeypatch, tmp_path):
    """What a worker says of each job of the suite with one more cell, and where its files are."""
    context = {"messages": queue.SimpleQueue(), "stop": SimpleNamespace(value=0), "threads": 1}
    for name, value in context.items():
        monkeypatch.setitem(worker._context, name, value)

    def outcomes(config, **settings):
        cell = {"config": f"digits/{config}.yaml", "set": {**micro.SUITE["cells"][config]["set"], **settings}}
        suite, jobs = micro.jobs(tmp_path, diverges=cell)
        of_cell = {job.part: job for job in jobs if job.cell.name == "diverges"}
        others = [job for job in jobs if job.cell.name == "reference_classifier"]
        results = [worker.work(job, suite.protocol, leased=False) for job in (*of_cell.values(), *others)]
        return {result["job"]: result.get("error", result["status"]) for result in results}, of_cell["train"].folder

    return outcomes


@pytest.mark.slow
def test_samples_that_are_not_finite_fail_the_cell_and_the_others_go_on(outcomes):
    told, _ = outcomes("score_model", **{"trainer.max_steps": 1, "optimizer.init_args.lr": 1e30, "lr_scheduler": None})
    assert told == {
        "diverges/seed0/train": "ok",
        "diverges/seed0/evaluate": "diverged: samples 0 to 7 are not finite",
        "reference_classifier/seed1000/train": "ok",
        "reference_classifier/seed1000/evaluate": "ok",
    }


def test_a_loss_that_is_not_finite_fails_the_cell_with_its_step_and_keeps_the_last_good_point(outcomes):
    # The rate rises at each step: it diverges after a few.
    rising = {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 1e4}}
    told, folder = outcomes(
        "score_model", **{"checkpoint_every": 1, "optimizer.init_args.lr": 1e-6, "lr_scheduler": rising}
    )
    error = told["diverges/seed0/train"]
    assert error.startswith("diverged: loss is not finite at step ")
    step = int(error.removeprefix("diverged: loss is not finite at step ").partition(":")[0])
    assert [path.stem for path in checkpoints(folder / "checkpoints")] == [
        f"step={k:08d}" for k in (step - 2, step - 1)
    ]
    assert told["reference_classifier/seed1000/evaluate"] == "ok"
