"""A suite on a machine that others keep busy, and one that is started again when it is finished."""

import json

import pytest
from faults import busy, micro, preloaded

from benchmark import run

WORDS = ["--suite", "micro.yaml", "--out", "run", "--workers", "1"]


@pytest.mark.slow
def test_fifty_jobs_beside_busy_processes_have_the_numbers_of_a_machine_of_its_own(tmp_path):
    with busy.busy(3):
        found = busy.one_round("fifty", tmp_path / "busy")
    assert len(list(tmp_path.glob("busy/runs/fifty/*/seed*/stages/metrics.json"))) == 25
    assert len(micro.jobs_of(tmp_path / "busy/fifty.yaml")[1]) == 50
    micro.carried_out_of(tmp_path / "busy/fifty.yaml")
    assert found == micro.numbers(tmp_path / "busy/run")


def test_a_finished_suite_that_is_started_again_does_nothing(copied):
    first = preloaded.start(run.main, WORDS, copied, copied / "said")
    assert (first.code, first.errors) == (0, "")
    before = {path: path.stat().st_mtime_ns for path in copied.glob("run/*/**/*")}
    tables = {name: (copied / "run" / name).read_bytes() for name in ("results.json", "results.csv", "results.md")}
    again = preloaded.start(run.main, WORDS, copied, copied / "said again")
    assert (again.code, again.errors) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in copied.glob("run/*/**/*")} == before
    assert {name: (copied / "run" / name).read_bytes() for name in tables} == tables
    assert json.loads(tables["results.json"])["records"]
