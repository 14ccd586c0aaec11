"""kill -9 at random moments: what is finished stays, what is not goes on, and the numbers are those of one go."""

import contextlib
import json
import os
import random
import re
import signal
import time
from collections import Counter

import pytest
from faults import micro, preloaded

import benchmark.run
from benchmark.results.page import write_report
from benchmark.results.results_file import read_results
from benchmark.results.tables import write_tables


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


@pytest.mark.slow
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


FOUR = {
    "guided": {
        "config": "digits/noisy_classifier.yaml",
        "set": {**micro.SHORT, "model.init_args.sampler.init_args.steps": 2},
        "guidance_scales": [1],
    }
}
"""A fourth cell, which needs the score model."""
TARGETS = "group", "worker", "parent"


class Killing:
    """Runs of the suite of four cells in one folder, each killed at a random moment.

    Attributes:
        folder: Where the suite and, in ``run``, its run are.
        seconds: What an unbroken run takes.
        numbers, files: What it leaves.
    """

    def __init__(self, folder):
        self.folder, self.rng = folder, random.Random(1)
        self.seconds, self.numbers, self.files = 0, {}, set()
        self.kills, self.finished, self.sessions = Counter(), 0, []

    def start(self):
        run = preloaded.start(
            benchmark.run.main, ["--suite", "micro.yaml", "--out", "run", "--workers", "2"], self.folder,
            self.folder / "said",
        )  # fmt: skip
        self.sessions.append(run.pid)
        return run

    def attempt(self, target):
        """Start a run, kill some of it at a random moment unless it ends before, and see what became of it."""
        run, end = self.start(), time.monotonic() + self.rng.uniform(0, self.seconds)
        while run.runs and time.monotonic() < end:
            time.sleep(0.002)
        workers = [pid for pid in micro.session(run.pid) if pid != run.pid and preloaded.is_copy(pid)]
        if run.runs and (target != "worker" or workers):
            self.kills[target] += 1
            self.kill(run, target, workers)
        self.ended(run, killed=target != "worker" and run.code == -signal.SIGKILL)

    def kill(self, run, target, workers):
        with contextlib.suppress(ProcessLookupError):  # it has ended in the meantime
            if target == "group":
                os.killpg(run.pid, signal.SIGKILL)
            else:
                os.kill(run.pid if target == "parent" else self.rng.choice(workers), signal.SIGKILL)

    def ended(self, run, killed):
        """A run that was not killed itself, whatever it found, ends well and leaves what an unbroken one leaves."""
        if not killed:
            assert run.code == 0, (self.kills, run.code, run.errors, self.failures())
            assert numbers_of_table(self.folder / "run") == self.numbers
            assert files(self.folder / "run") == self.files
            (self.folder / "run").rename(self.folder / f"finished{self.finished}")
            self.finished += 1
            micro.until(lambda: not any(map(micro.session, self.sessions)), seconds=60)
            self.sessions.clear()

    def failures(self):
        """The ends of the cells' logs."""
        return {path.parent.parent.name: path.read_text()[-2000:] for path in self.folder.glob("run/*/seed*/log")}


@pytest.mark.slow
def test_runs_killed_at_random_moments_go_on_and_end_at_the_same_table(tmp_path, request):
    """``--kills`` says how often: all processes of a run, one worker, or the run alone without its workers."""
    (tmp_path / "whole").mkdir()
    micro.carried_out(tmp_path / "whole", **FOUR)
    whole = Killing(tmp_path / "whole")
    assert whole.start().code == 0  # tables alone are left to make
    write_report(tmp_path / "whole/run")  # imports what a run needs for that
    micro.suite_file(tmp_path, **FOUR)
    killing, start = Killing(tmp_path), time.monotonic()
    assert killing.start().code == 0
    killing.seconds, killing.files = time.monotonic() - start, files(tmp_path / "run")
    killing.numbers = numbers_of_table(tmp_path / "run")
    assert killing.numbers == numbers_of_table(tmp_path / "whole/run")
    (tmp_path / "run").rename(tmp_path / "unbroken")
    while killing.kills.total() < request.config.getoption("--kills"):
        killing.attempt(killing.rng.choice(TARGETS))
    if (tmp_path / "run").exists():
        killing.ended(killing.start(), killed=False)
    print(f"{dict(killing.kills)} killed; {killing.finished} runs ended at the same table")
    assert set(killing.kills) == set(TARGETS) or killing.kills.total() < 10


def files(run):
    """Names of all files of a run; those of TensorBoard hold a time."""
    return {
        re.sub(r"tfevents\..*", "tfevents", str(path.relative_to(run))) for path in run.rglob("*") if path.is_file()
    }


def numbers_of_table(run):
    """What a run's table holds, without what it cost."""
    return {
        (r.cell, r.seed, r.metric, json.dumps(r.protocol)): (r.value, r.stderr, r.status)
        for r in read_results(run / "results.json").records
        if not r.metric.startswith(("cpu_seconds", "throughput"))
    }


def test_tables_killed_while_they_are_written_are_those_before_or_those_after(tmp_path):
    from benchmark.results.record import Results, not_applicable

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
