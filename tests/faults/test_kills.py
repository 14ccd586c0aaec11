"""kill -9 at random moments: what is finished stays, what is not goes on, and the numbers are those of one go."""

import json
import os
import random
import signal
import time

import pytest
from faults import micro

from benchmark.record import read_results
from benchmark.tables import write_tables


def in_a_copy(folder):
    """A copy of this process that carries out the suite."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            micro.carried_out(folder)
            code = 0
        finally:
            os._exit(code)
    return child


def test_jobs_killed_at_random_moments_end_at_the_same_numbers(tmp_path, whole):
    micro.jobs(tmp_path)  # configurations are read once, before the copies are made
    start = time.monotonic()
    assert os.waitpid(in_a_copy(tmp_path), 0)[1] == 0
    seconds = time.monotonic() - start
    rng, kills, folder = random.Random(0), 0, None
    while kills < 8:
        if folder is None:
            folder = tmp_path / f"{kills}"
            folder.mkdir()
        child = in_a_copy(folder)
        time.sleep(seconds * rng.uniform(0.05, 0.5))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            assert micro.numbers(folder / "run") == micro.numbers(whole / "run")
            folder = None
        kills += 1
    if folder is not None:
        micro.carried_out(folder)
        assert micro.numbers(folder / "run") == micro.numbers(whole / "run")


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_at_the_same_table(tmp_path, whole, request):
    """Each time a run of its own, killed with all its processes; ``--kills`` says how often."""
    micro.suite_file(tmp_path)
    start = time.monotonic()
    code, _, errors = micro.ended(micro.started(tmp_path))
    assert code == 0, errors
    seconds, table = time.monotonic() - start, numbers_of_table(tmp_path / "run")
    assert table == micro.numbers(whole / "run")
    rng, finished = random.Random(1), 0
    (tmp_path / "run").rename(tmp_path / "first")
    for _ in range(request.config.getoption("--kills")):
        process = micro.started(tmp_path)
        # Most of a run is spent on importing libraries, where there is little to lose.
        end = time.monotonic() + seconds * rng.uniform(0.3, 1)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        ended = process.poll() == 0
        micro.killed(process)
        if ended:
            assert numbers_of_table(tmp_path / "run") == table
            (tmp_path / "run").rename(tmp_path / f"finished{finished}")
            finished += 1
    code, _, errors = micro.ended(micro.started(tmp_path))
    assert code == 0, errors
    assert numbers_of_table(tmp_path / "run") == table
    again = {name: (tmp_path / "run" / name).read_bytes() for name in ("results.json", "results.csv", "results.md")}
    code, _, errors = micro.ended(micro.started(tmp_path))
    assert (code, errors) == (0, "")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in again} == again
    assert not [path for path in (tmp_path / "run").rglob(".*.tmp")]


def numbers_of_table(run):
    """What a run's table holds, without what it cost."""
    return {
        (r.cell, r.seed, r.metric, json.dumps(r.protocol)): (r.value, r.stderr, r.status)
        for r in read_results(run / "results.json").records
        if not r.metric.startswith(("cpu_seconds", "throughput"))
    }


def test_tables_killed_while_they_are_written_are_those_before_or_those_after(tmp_path):
    from benchmark.record import Results, not_applicable

    def table(commit):
        records = [not_applicable("a", "m", seed, "nll", "no density", protocol={}) for seed in range(300)]
        return Results(suite="s", commit=commit, environment={}, records=records)

    write_tables(tmp_path, table("0"))
    rng = random.Random(2)
    for _ in range(10):
        child = os.fork()
        if child == 0:
            for commit in range(10**6):
                write_tables(tmp_path, table(str(commit)))
        time.sleep(rng.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert len(read_results(tmp_path / "results.json").records) == 300
        assert len((tmp_path / "results.csv").read_text().splitlines()) == 301
        assert (tmp_path / "results.md").read_text().startswith("Suite s")
