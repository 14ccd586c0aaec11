"""The tables of a run's folder: all that it holds, whatever part of the suite was asked for last."""

import json
import os
import re
import subprocess
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark.execute import tabulate as tables
from benchmark.execute.journal import progress_path
from benchmark.execute.session import execute, jobs_of
from benchmark.execute.tabulate import tabulate
from benchmark.results.answers_file import FILE
from benchmark.results.record import failed, measured
from benchmark.results.results_file import read_results
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import Cell, Suite
from benchmark.system.arrays import load_arrays, save_arrays
from benchmark.system.files import write_json

CONFIG = {"model": {"class_path": "methods.supervised.Supervised", "init_args": {}}, "trainer": {}, "data": {}}
ENGINE = SimpleNamespace(here=True, hardware={}, resolve=lambda cells, dry: dict.fromkeys(cells, CONFIG))


@pytest.fixture
def suite(tmp_path):
    """Two cells with two seeds, judged by one of them, whose seed is not fixed."""
    (tmp_path / "configs").mkdir()
    cells = {name: Cell(name, config=str(tmp_path / "configs" / f"{name}.yaml")) for name in ("judge", "other")}
    return Suite("s", "judge", Protocol(), cells, [0, 1])


def finish(jobs, value=0.5):
    """Finish jobs as a run would; an evaluation with one number."""
    for job in jobs:
        for stage in job.stages:
            write_json(job.folder / "per_class.json", [])
            record = measured(job.cell.name, "m", job.seed, "accuracy/clean", value, n=10)
            write_json(job.folder / "record.json", [asdict(record)])
            outputs = ["record.json", "per_class.json"] if stage.name == "metrics" else []
            stage.complete(job.folder, lambda outputs=outputs: {"outputs": outputs})
    return {job.name: {"status": "ok"} for job in jobs}


def rows(out):
    return {(r.cell, r.seed): r.value for r in read_results(out / "results.json").records}


def call(suite, out, seeds, only, value=0.5):
    jobs, every = jobs_of(suite, ENGINE, out, seeds, only, write=True)
    results = finish([job for job in jobs if not job.finished], value)
    return tabulate(suite, ENGINE, every, results, out)


def test_a_selection_adds_to_the_tables_and_says_what_it_did(suite, tmp_path, capsys):
    out = tmp_path / "run"
    assert call(suite, out, [0, 1], ["judge", "other"]) == 0
    assert "rows:    4 by cell and seed, 4 carried out now\n" in capsys.readouterr().out
    assert call(suite, out, [2], ["other"], 0.75) == 0
    assert "rows:    5 by cell and seed, 1 carried out now: other with seed 2\n" in capsys.readouterr().out
    whole = {("judge", 0): 0.5, ("judge", 1): 0.5, ("other", 0): 0.5, ("other", 1): 0.5, ("other", 2): 0.75}
    assert rows(out) == whole
    assert call(suite, out, [1], ["other"]) == 0
    assert "rows:    5 by cell and seed, 0 carried out now\n" in capsys.readouterr().out
    assert rows(out) == whole
    page = (out / "report.html").read_text()
    assert "judge" in page
    assert "other" in (out / "results.md").read_text()


def test_tables_are_written_again_only_if_what_they_show_or_a_file_has_changed(suite, tmp_path):
    out = tmp_path / "run"
    call(suite, out, [0, 1], ["judge", "other"])
    files = [out / name for name in ("results.json", "results.md", "per_class.csv", "report.html")]
    written = [path.stat().st_ino for path in files]
    whole = [path.read_bytes() for path in files]
    call(suite, out, [0, 1], ["judge", "other"])
    assert [path.stat().st_ino for path in files] == written
    for path in files:
        path.write_bytes(b"spoilt")
        call(suite, out, [0, 1], ["judge", "other"])
        assert [path.read_bytes() for path in files] == whole
    finish([job for job in jobs_of(suite, ENGINE, out, [1], ["other"], write=True)[0] if job.part == "evaluate"], 0.25)
    call(suite, out, [0, 1], ["judge", "other"])
    assert rows(out) == {("judge", 0): 0.5, ("judge", 1): 0.5, ("other", 0): 0.5, ("other", 1): 0.25}
    assert (out / "report.html").read_bytes() != whole[-1]


def test_scores_of_images_that_were_changed_by_hand_are_made_again(suite, tmp_path):
    out = tmp_path / "run"
    jobs, every = jobs_of(suite, ENGINE, out, [0, 1], ["judge", "other"], write=True)
    results = finish(jobs)
    for job in (job for job in jobs if job.part == "evaluate"):
        save_arrays(job.folder / "logits.npz", y=np.array([0, 1]), clean=np.array([[1.0, 0.0], [1.0, 0.0]]))
        job.stage("classify").complete(job.folder, lambda: {"outputs": ["logits.npz"]})
    for _ in range(2):
        assert tabulate(suite, ENGINE, every, results, out) == 0
        scores = load_arrays(out / FILE)
        assert scores["accuracy/clean"].tolist() == [[1, 0]] * 4
        save_arrays(out / FILE, **{**scores, "accuracy/clean": np.ones((4, 2), np.float32)})


def test_what_was_finished_under_another_key_is_absent_and_named(suite, tmp_path, capsys):
    out = tmp_path / "run"
    call(suite, out, [0, 1], ["judge", "other"])
    for path in (out / "other" / "seed0" / "stages").glob("metrics.json"):
        write_json(path, {**json.loads(path.read_text()), "key": "of older settings"})
    assert "left out" not in capsys.readouterr().out
    call(suite, out, [1], ["judge"])
    assert (
        "left out: 1 row(s) of other code, settings or data, to be measured again: other\n" in capsys.readouterr().out
    )
    assert rows(out) == {("judge", 0): 0.5, ("judge", 1): 0.5, ("other", 1): 0.5}
    call(suite, out, [1], ["judge"])
    assert "left out" not in capsys.readouterr().out


def test_a_failure_of_now_stands_beside_what_was_finished_before(suite, tmp_path):
    out = tmp_path / "run"
    call(suite, out, [0], ["judge", "other"])
    jobs, every = jobs_of(suite, ENGINE, out, [1], ["other"], write=True)
    results = {job.name: {"status": "failed", "error": "boom"} for job in jobs if not job.finished}
    assert tabulate(suite, ENGINE, every, results, out) == 4
    found = read_results(out / "results.json").records
    assert {(r.cell, r.seed, r.status) for r in found} == {
        ("judge", 0, "ok"), ("other", 0, "ok"), ("other", 1, "failed"),
    }  # fmt: skip
    assert failed("other", "supervised", 1, "accuracy/clean", "boom") in found


def test_whichever_seeds_are_asked_for_one_classifier_judges(suite, tmp_path):
    whole, every = jobs_of(suite, ENGINE, tmp_path, [0, 1], ["judge", "other"], write=False)
    some, same = jobs_of(suite, ENGINE, tmp_path, [1], ["other"], write=False)
    assert whole == every == same
    assert [job for job in whole if job.name in {job.name for job in some}] == some
    assert {job.reference for job in whole} == {tmp_path / "judge" / "seed0"}
    assert [job.name for job in some] == ["judge/seed0/train", "judge/seed1/train", "other/seed1/evaluate"]  # alike


def test_the_commit_is_that_of_the_source_whatever_repository_the_environment_names(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    ours = tables._commit()
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?", ours)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert tables._commit() == ours


def test_source_that_lies_in_another_checkout_has_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    (tmp_path / "tabulate.py").write_text("")
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "tabulate.py"))
    assert tables._commit() == ""


def test_what_killed_processes_left_is_deleted_but_where_a_job_goes_on_elsewhere(suite, tmp_path):
    out = tmp_path / "run"
    jobs, _ = jobs_of(suite, ENGINE, out, [0, 1], ["judge"], write=True)
    finish(jobs)
    half, elsewhere = ".x.npz.1-0123abcd.tmp", out / "judge/seed0"
    left = [out / half, out / "judge/seed1" / half, out / "judge/seed1/checkpoints/step=00000003.ckpt"]
    kept = [elsewhere / half, elsewhere / "checkpoints/step=00000003.ckpt", out / ".mine.tmp"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    news = {"host": "another", "boot": "b", "pid": 7, "start": "1", "since": time.time(), "at": time.time()}
    write_json(progress_path(elsewhere, "train"), news)
    assert execute(suite, ENGINE, jobs, out, check=lambda: None) == ({}, None)
    assert [path for path in (*left, *kept) if path.exists()] == kept
