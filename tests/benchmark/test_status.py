"""How far a run is, as its files say."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.execute import journal
from benchmark.execute.journal import Journal, Progress, progress_path
from benchmark.status import look, main
from benchmark.suite.jobs import QUEUE, Job, check_owner, read_plan, write_plan
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell
from benchmark.system.files import write_json
from benchmark.system.machine import this_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    """A folder of a run of four jobs, of which none was started."""
    write_plan(tmp_path, "mini", "key", {"a": {}}, jobs(tmp_path))
    return tmp_path


def jobs(out):
    def one(cell, part, *stages, needs=()):
        made = tuple(Stage(name, f"{cell}-{name}") for name in stages)
        return Job(Cell(cell), 0, part, out / cell / "seed0", made, needs=needs, steps=600)

    return [
        one("a", "train", "train", "real"),
        one("b", "train", "train"),
        one("a", "evaluate", "sample", "metrics", needs=("a/seed0/train",)),
        one("b", "evaluate", "sample", "metrics", needs=("a/seed0/train", "b/seed0/train")),
    ]


def finish(job):
    for stage in job.stages:
        stage.complete(job.folder, lambda: {"outputs": []})


def news(job, **changed):
    """Write a job's progress file, as of a process that runs here and was heard of just now."""
    path = progress_path(job.folder, job.part)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**this_process(), "since": time.time(), "at": time.time(), **changed})
    return path


def states(out):
    return {at.job.name: at.state for at in look(out).jobs}


def shown(capsys, out, *more):
    code = main([str(out), *more])
    return code, capsys.readouterr()


def test_the_plan_names_the_same_jobs_wherever_the_folder_lies(run, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(run, moved)
    assert read_plan(moved) == ("mini", [Job(**{**vars(job), "config": {}}) for job in jobs(moved)])


def test_a_plan_may_hold_trainings_without_a_number_of_steps(tmp_path):
    stages = (Stage("train", "key"),)
    fitted = Job(Cell("gaussian"), 0, "train", tmp_path / "gaussian/seed0", stages, steps=-1)  # trainer.max_steps
    write_plan(tmp_path, "mini", "key", {}, [fitted])
    assert read_plan(tmp_path) == ("mini", [fitted])


def test_a_run_that_has_not_begun_is_missing_all_of_it(run, capsys):
    assert set(states(run).values()) == {"missing"}
    code, said = shown(capsys, run)
    assert code == 4
    assert said.out.splitlines()[-1] == "suite mini: 0/4 jobs done, 4 missing, time left unknown"


def test_a_finished_run_is_complete(run, capsys):
    for job in jobs(run):
        finish(job)
    code, said = shown(capsys, run)
    assert code == 0
    assert said.out.splitlines()[-1] == "suite mini: 4/4 jobs done"


def test_a_stage_of_another_key_is_not_finished(run):
    first = jobs(run)[0]
    Stage("train", "of an older configuration").complete(first.folder, lambda: {"outputs": []})
    assert look(run).jobs[0].stages == 0


def test_a_job_that_runs_says_where_it_is_and_how_long_it_will_take(run, capsys):
    first = jobs(run)[0]
    news(first, stage="train", done=150, total=600, rate=2.5)
    at = look(run).jobs[0]
    assert (at.state, at.share) == ("running", 0.25)
    assert at.left == pytest.approx(180, abs=5)
    assert at.detail.startswith(f"train 150/600, on {os.uname().nodename}, 2:5") or "3:00" in at.detail
    code, said = shown(capsys, run)
    assert code == 4
    assert "1 running, 3 missing" in said.out


def test_the_process_that_hands_out_jobs_writes_where_they_are(run, monkeypatch):
    monkeypatch.setattr(journal, "HEARTBEAT", 0)
    first, second, *_ = jobs(run)
    book = Journal([first, second])
    book.update({"job": first.name, "event": "started"})
    assert look(run).jobs[0].detail == f"starting, on {os.uname().nodename}"
    book.update({"job": first.name, "stage": "train", "done": 25, "total": 600, "loss": float("nan")})
    book.beat()
    assert look(run).jobs[0].detail == f"train 25/600, on {os.uname().nodename}"
    assert states(run)[second.name] == "missing"
    book.update({"job": first.name, "event": "stopped", "status": "stopped"})
    assert states(run)[first.name] == "stopped"
    book.update({"job": first.name, "event": "started"})
    book.update({"job": first.name, "event": "failed", "status": "failed", "error": "loss is not finite"})
    assert (look(run).jobs[0].state, look(run).jobs[0].detail) == ("failed", "loss is not finite")
    book.update({"job": first.name, "event": "started"})
    book.update({"job": first.name, "event": "ok", "status": "ok"})
    assert not progress_path(first.folder, "train").exists()


def test_progress_of_a_deleted_run_is_not_written_anew(run, monkeypatch):
    monkeypatch.setattr(journal, "HEARTBEAT", 0)
    first = jobs(run)[0]
    book = Journal([first])
    book.update({"job": first.name, "event": "started"})
    shutil.rmtree(run)
    book.beat()
    book.update({"job": first.name, "event": "failed", "status": "failed", "error": "x"})
    assert not run.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": "1"}, {"host": 3}, {"since": None}, {"at": float("nan")}, {"at": "now"}, {"done": []}, {"rate": -1},
        {"total": 10**400}, {"status": "fine"}, {"error": {}}, {"stage": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_progress_file_counts_as_none(run, changed):
    path = news(jobs(run)[0], stage="train", done=1, total=2)
    assert states(run)[jobs(run)[0].name] == "running"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    assert states(run)[jobs(run)[0].name] == "missing"


def test_the_time_left_is_that_of_the_pace_of_the_run(run, capsys):
    """No committed results: one training took 100 seconds, so the other will; nothing is known of evaluations."""
    first, _, *evaluations = jobs(run)
    first.stages[0].complete(first.folder, lambda: {"seconds": 90.0})
    first.stages[1].complete(first.folder, lambda: {"seconds": 10.0})
    assert shown(capsys, run)[1].out.splitlines()[-1].endswith("time left unknown")
    for stage in evaluations[0].stages:
        stage.complete(evaluations[0].folder, lambda: {"seconds": 30.0})
    assert shown(capsys, run)[1].out.splitlines()[-1].endswith("2/4 jobs done, 2 missing, about 2:40 left")


def test_a_failure_is_shown_with_its_reason_and_what_it_blocks(run, capsys):
    second = jobs(run)[1]
    Progress(second.folder, "train").end({"status": "failed", "error": "[red]loss[/] is not finite"})
    code, said = shown(capsys, run)
    assert code == 4
    lines = said.out.splitlines()
    assert [line for line in lines if line.startswith("b/seed0/train") and "[red]loss[/] is not finite" in line]
    assert [
        line for line in lines if line.startswith("b/seed0/evaluate") and "needs b/seed0/train, which failed" in line
    ]


def test_an_attempt_whose_process_is_gone_has_died(run):
    first = jobs(run)[0]
    lived = subprocess.Popen([sys.executable, "-c", ""])
    lived.wait()
    news(first, pid=lived.pid)
    assert states(run)[first.name] == "died"
    news(first, pid=1)  # another process has its number by now
    assert states(run)[first.name] == "died"
    news(first, boot="before", at=time.time() - 2 * journal.SILENCE)  # before the machine was started anew
    assert states(run)[first.name] == "died"


def test_an_owner_from_before_the_machine_was_started_anew_is_gone(run):
    owner = this_process()
    write_json(run / "owner.json", owner)
    assert look(run).owner == owner
    write_json(run / "owner.json", {**owner, "boot": "before"})
    assert look(run).owner is None
    write_json(run / "owner.json", {**owner, "host": "elsewhere", "boot": "its own"})
    assert look(run).owner is not None


def test_an_attempt_elsewhere_lives_while_it_is_heard_of(run):
    first = jobs(run)[0]
    far = {"host": "elsewhere", "pid": 1, "boot": "y", "start": "2", "since": time.time() - 1000}
    news(first, **far)
    assert states(run)[first.name] == "running"
    news(first, **far, at=time.time() - 2 * journal.SILENCE)
    at = look(run).jobs[0]
    assert at.state == "died"
    assert at.detail == "process 1 on elsewhere: no sign of life for 2:00"


def test_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    code, said = shown(capsys, tmp_path)
    assert (code, said.out) == (2, "")
    assert said.err.startswith(f"error: no run in {tmp_path}; name the folder")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "plan",
    ["{", "[]", "{}", '{"suite": "x", "jobs": [{}]}', '{"suite": "x", "jobs": 3}', '{"key": "", "resolved": {}}'],
)
def test_a_plan_that_cannot_be_read_is_refused_in_one_line(tmp_path, capsys, plan):
    (tmp_path / "plan.json").write_text(plan)
    code, said = shown(capsys, tmp_path)
    assert (code, said.out) == (2, "")
    assert said.err.startswith(f"error: {tmp_path / 'plan.json'} is not a plan that this version can read")
    assert said.err.count("\n") == 1


def test_a_watch_needs_time_between_two_looks(run, capsys):
    code, said = shown(capsys, run, "--watch", "--every", "0")
    assert (code, said.err) == (2, "error: --every must be a positive number of seconds, got 0\n")


def test_a_watch_ends_when_all_is_done(run, capsys):
    write_json(run / "owner.json", this_process())

    def go_on():
        for job in jobs(run):
            finish(job)

    threading.Timer(0.5, go_on).start()
    code, said = shown(capsys, run, "--watch", "--every", "0.1")
    assert (code, said.err) == (0, "")
    assert "4/4 jobs done" in said.out


def test_a_watch_ends_when_a_failure_leaves_nothing_to_wait_for(run, capsys):
    *others, last = jobs(run)
    for job in others:
        finish(job)
    news(last, status="failed", error="boom")
    code, said = shown(capsys, run, "--watch", "--every", "0.1")
    assert (code, said.err) == (4, "")
    assert "boom" in said.out


def gone():
    """What tells a process that has ended."""
    code = "import json; from benchmark.system.machine import this_process; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_watch_of_a_killed_run_ends(run, capsys):
    process = gone()
    write_json(run / "owner.json", process)
    news(jobs(run)[0], **process)
    code, said = shown(capsys, run, "--watch", "--every", "0.1")
    assert (code, said.err) == (4, "")
    assert said.out.splitlines()[-1] == "suite mini: 0/4 jobs done, 1 died, 3 missing, time left unknown"


def test_a_watch_of_a_stopped_run_ends(run, capsys):
    finish(jobs(run)[0])
    Progress(jobs(run)[1].folder, "train").end({"status": "stopped"})
    code, said = shown(capsys, run, "--watch", "--every", "0.1")
    assert (code, said.err) == (4, "")
    assert "1 stopped, 2 missing" in said.out


def test_a_run_is_not_settled_while_somebody_is_at_it_or_its_jobs_wait_in_a_queue(run):
    assert look(run).settled
    write_json(run / "owner.json", this_process())
    assert not look(run).settled
    (run / "owner.json").unlink()
    news(jobs(run)[0])
    assert not look(run).settled
    Progress(jobs(run)[0].folder, "train").end({"status": "stopped"})
    (run / QUEUE).write_text("submit.sh")
    assert not look(run).settled  # the scheduler starts it again
    for job in jobs(run):
        finish(job)
    assert look(run).settled


def test_a_watch_can_be_interrupted(run, capsys):
    write_json(run / "owner.json", this_process())
    # Whatever started the tests may ignore Ctrl-C, as a shell does for what it runs in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        code, said = shown(capsys, run, "--watch", "--every", "0.1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, said.err) == (130, "")


def test_it_starts_without_heavy_packages(run):
    words = [sys.executable, "-X", "importtime", "-m", "benchmark.status", str(run)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "rich" in imported
    assert not imported & {"torch", "lightning", "torchmetrics", "sklearn", "matplotlib", "ray"}


def test_the_folder_of_another_suite_is_refused(tmp_path):
    check_owner(tmp_path, "other")
    write_plan(tmp_path, "mini", "key", {}, jobs(tmp_path))
    check_owner(tmp_path, "mini")
    with pytest.raises(InputError, match="holds a run of suite mini; choose another folder"):
        check_owner(tmp_path, "other")
