"""How long a run will take: by predictions, and by what it has measured so far."""

import pytest

from benchmark.cost.times import PRIOR, Seen, TimeLeft, filled_in, pace, remaining_seconds, time_left
from benchmark.suite.jobs import Job
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell


def train(cell, *needs, part="train", folder=None):
    return Job(Cell(cell), 0, part, folder, (Stage("train", "key"),), needs=needs)


def test_time_left_is_that_of_the_longest_chain_or_of_all_work_shared():
    jobs = [train("a"), train("b", "a/seed0/train"), train("c")]
    cost = {("a", "train"): 10.0, ("b", "train"): 20.0, ("c", "train"): 4.0}
    assert remaining_seconds(jobs, cost, workers=1) == 34
    assert remaining_seconds(jobs, cost, workers=2) == 30
    assert remaining_seconds(jobs, cost, workers=2, done={"a/seed0/train": 0.5, "c/seed0/train": 1.0}) == 25
    assert remaining_seconds(jobs, {}, workers=2) is None
    assert remaining_seconds([], {}, workers=2) == 0
    assert remaining_seconds(jobs, filled_in({("a", "train"): 10.0, ("b", "train"): 20.0}, jobs), workers=1) == 45
    assert filled_in({}, jobs) == {}


def named(*cells):
    return [f"{cell}/seed0/train" for cell in cells]


MANY = [train(f"c{k}") for k in range(56)]
COSTS = {(f"c{k}", "train"): 10.0 for k in range(56)}


def test_a_run_that_takes_nine_times_as_long_as_predicted_says_so_for_the_rest():
    """22 of 56 jobs are done after 21 minutes of two processes; by the prediction the rest would take three minutes."""
    finished = named(*(f"c{k}" for k in range(22)))
    seen = {name: Seen(2 * 21 * 60 / 22) for name in finished}
    left = time_left(MANY, COSTS, 2, dict.fromkeys(finished, 1.0), seen)
    assert remaining_seconds(MANY[22:], COSTS, 2) == 170
    slower = (PRIOR + 2520) / (PRIOR + 220)
    assert left == pytest.approx(170 * slower)
    assert left > 17 * 60


def test_a_run_as_fast_as_predicted_keeps_the_prediction():
    finished = named("c0", "c1")
    assert time_left(MANY, COSTS, 4, dict.fromkeys(finished, 1.0), dict.fromkeys(finished, Seen(10.0))) == 54 * 10 / 4


def test_the_first_seconds_hardly_change_the_prediction():
    (first,) = named("c0")
    start = time_left(MANY, COSTS, 2, {}, {})
    noisy = time_left(MANY, COSTS, 2, {first: 0.01}, {first: Seen(1.0, 0.01)})  # ten times as slow, for a second
    assert start == 280
    assert noisy == pytest.approx(start, rel=0.05)


def test_a_running_training_counts_by_its_share_and_an_evaluation_once_it_is_late():
    jobs = [train("a"), train("b", part="evaluate")]
    costs = {("a", "train"): 300.0, ("b", "evaluate"): 100.0}
    assert pace(jobs, costs, {"a/seed0/train": Seen(600.0, 0.5)}) == (PRIOR + 600) / (PRIOR + 150)
    assert pace(jobs, costs, {"b/seed0/evaluate": Seen(99.0, None)}) == 1
    assert pace(jobs, costs, {"b/seed0/evaluate": Seen(400.0, None)}) == (PRIOR + 400) / (PRIOR + 100)
    both = {"a/seed0/train": Seen(1200.0, 0.5), "b/seed0/evaluate": Seen(400.0, None)}
    assert pace(jobs, costs, both) == (PRIOR + 1200) / (PRIOR + 150)  # at that pace 400 seconds are not late
    done = {"a/seed0/train": 0.5}
    assert time_left(jobs, costs, 1, done, {"b/seed0/evaluate": Seen(40.0, None)}) == 150 + 60


def test_without_a_prediction_what_is_finished_serves():
    finished = named("c0", "c1")
    seen = {finished[0]: Seen(100.0), finished[1]: Seen(300.0)}
    assert time_left(MANY[:6], {}, 2, dict.fromkeys(finished, 1.0), seen) == 4 * 200 / 2
    assert time_left(MANY[:6], {}, 2, {}, {}) is None
    assert time_left(MANY[:2], {}, 2, dict.fromkeys(finished, 1.0), seen) == 0


def test_what_finished_jobs_took_is_read_from_their_stages(tmp_path):
    jobs = [train("a", folder=tmp_path / "a"), train("b", folder=tmp_path / "b")]
    jobs[0].stages[0].complete(jobs[0].folder, lambda: {"seconds": 600.0})
    left = TimeLeft({("a", "train"): 60.0, ("b", "train"): 60.0}, 1)
    assert left(jobs, {}, {}) == 120
    assert left(jobs, {jobs[0].name: 1.0}, {}) == 60 * (PRIOR + 600) / (PRIOR + 60)
    resumed = TimeLeft({("a", "train"): 60.0, ("b", "train"): 60.0}, 1, before=[jobs[0].name])
    assert resumed(jobs, {jobs[0].name: 1.0}, {}) == 60  # the machine may have been busy then
    assert TimeLeft({}, 1, before=[jobs[0].name])(jobs, {jobs[0].name: 1.0}, {}) == 600
