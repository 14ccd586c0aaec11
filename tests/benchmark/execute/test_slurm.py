"""A suite as Slurm scripts, submitted to a batch system that runs each at once, and trainings that Slurm ends."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.errors import InputError
from benchmark.execute.slurm import write_scripts
from benchmark.run import main
from benchmark.status import look
from benchmark.training.checkpoints import FINAL, checkpoints
from runs import ENVIRONMENT, ROOT, job, until

SUITE = {
    "reference": "classes",
    "protocol": {"samples": 24, "noisy_draws": 1, "levels": 2, "batch": 100, "denoise_times": [0.5]},
    "cells": {
        "classes": {"config": "digits/supervised.yaml", "seed": 1000, "set": {"trainer.max_steps": 3}},
        "score": {
            "config": "digits/score_model.yaml",
            "set": {"trainer.max_steps": 4000, "checkpoint_every": 1, "data.init_args.batch_size": 16},
        },
    },
}  # fmt: skip
SBATCH = """#!/bin/bash
printf '%s\\0' "$@" >> "$RECORD/arguments"; echo >> "$RECORD/arguments"
number=$(wc -l < "$RECORD/arguments")
export SLURM_JOB_ID=$number SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NAME=suite
bash "${@: -1}" > "$RECORD/$number.out" 2>&1 || echo "exit $?" >> "$RECORD/$number.out"
echo "$number;cluster"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$RECORD/requeued"
"""


@pytest.fixture
def slurm(tmp_path):
    """Environment of a site whose batch system runs a job when it is submitted, in an allocation of four tasks."""
    commands = tmp_path / "site's commands"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    record = tmp_path / "record"
    record.mkdir()
    path = f"{commands}:{os.environ['PATH']}"
    return {**ENVIRONMENT, "PATH": path, "RECORD": str(record)}


def test_scripts_ask_for_what_a_job_needs_and_wait_for_what_it_waits_for(tmp_path):
    needs, cpu = ("b/seed0/train", "a/seed0/train"), {"accelerator": "cpu"}
    jobs = [
        job("a", trainer={"devices": 4}), job("b"), job("a", "evaluate", needs=("a/seed0/train", "gone/seed0/train")),
        job("b", "evaluate", needs=needs, after=("a/seed0/evaluate",), trainer=cpu),
    ]  # fmt: skip
    submit = write_scripts(tmp_path / "new" / "x y", jobs, "mini", ["--out", "/a b/$HOME'"])
    scripts = sorted(path.name for path in submit.parent.iterdir())
    names = ("a-seed0-train", "b-seed0-train", "a-seed0-evaluate", "b-seed0-evaluate", "mini-table")
    assert scripts == [*(f"{number}-{name}.sh" for number, name in enumerate(names, 1)), "submit.sh"]
    first, last = ((submit.parent / scripts[i]).read_text() for i in (0, 3))
    assert "#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=4\n#SBATCH --gres=gpu:4\n" in first
    assert "--gres" not in last
    line = next(line for line in first.splitlines() if line.endswith(" &"))
    assert shlex.split(line)[:-1] == [
        sys.executable,
        "-m",
        "benchmark.run",
        "--out",
        "/a b/$HOME'",
        "--job",
        jobs[0].name,
    ]
    submitted = re.findall(r'^job\d=\$\(submit (\S+) "(.*?)"', submit.read_text(), re.MULTILINE)
    assert [needs for _, needs in submitted] == [
        "", "", "afterok:$job1", "afterok:$job2:$job1,afterany:$job3", "afterok:$job1:$job2:$job3:$job4",
    ]  # fmt: skip
    for script in submit.parent.iterdir():
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_what_is_finished_is_not_submitted_again(tmp_path):
    done, left = job("a", folder=tmp_path / "a"), job("a", "evaluate", needs=("a/seed0/train",))
    done.stages[0].complete(done.folder, lambda: {"outputs": []})
    text = write_scripts(tmp_path / "new", [done, left], "mini", []).read_text()
    assert re.findall(r'submit (\S+) "(.*?)"', text) == [
        ("1-a-seed0-evaluate.sh", ""),
        ("2-mini-table.sh", "afterok:$job1"),
    ]


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        write_scripts(tmp_path, [], "mini", [])
    with pytest.raises(InputError, match=r"cannot write to .*: Not a directory"):
        write_scripts(tmp_path / "mine" / "below", [], "mini", [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--emit-sbatch", "x", "--engine", "ray"], "--emit-sbatch is for sites without Ray; leave --engine out"),
        (["--job", "a/seed0/train", "--fresh"], "--job cannot be combined with --fresh"),
        (["--job", "a/seed0/train", "--workers", "2"], "--job runs nothing side by side; leave --workers out"),
        (["--job", "a/seed0/train", "--emit-sbatch", "x"], "--job and --emit-sbatch exclude each other"),
        (["--dry-run", "--job", "a"], "--dry-run and --job exclude each other"),
        (["--address", "auto"], "--address is of a Ray cluster; add --engine ray"),
        (["--engine", "ray", "--workers", "2"], "--workers is for --engine local"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(capsys, tmp_path, options, told):
    assert main(["--suite", "digits", "--out", str(tmp_path / "run"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")
    assert not (tmp_path / "run").exists()


def run(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, check=False, **more
    )  # fmt: skip


@pytest.mark.slow
def test_the_scripts_of_a_suite_run_in_order_and_the_last_one_tabulates(tmp_path, slurm):
    """In folders whose names need quoting; ``SLURM_NTASKS`` of the allocation, which Lightning aborts on, is around."""
    suite = tmp_path / "mini.yaml"
    cells = {**SUITE["cells"], "score": {**SUITE["cells"]["score"], "set": {"trainer.max_steps": 3}}}
    suite.write_text(yaml.safe_dump({**SUITE, "cells": cells}))
    out, scripts = tmp_path / "a run's", tmp_path / "my scripts"
    options = ("--suite", "mini.yaml", "--out", out.name)
    done = run("benchmark.run", *options, "--emit-sbatch", scripts.name, cwd=tmp_path, env=slurm)
    assert (done.returncode, done.stderr) == (0, "")
    assert {at.state for at in look(out).jobs} == {"missing"}
    early = run("benchmark.run", *options, "--job", "score/seed0/evaluate", cwd=tmp_path, env=slurm)
    assert early.returncode == 4
    assert early.stderr.startswith("error: score/seed0/evaluate needs ")
    wrong = run("benchmark.run", *options, "--job", "score/seed0/trian", cwd=tmp_path, env=slurm)
    assert wrong.returncode == 2
    assert "did you mean score/seed0/train?" in wrong.stderr

    done = subprocess.run(
        [scripts / "submit.sh", "--account=my lab"], env=slurm, capture_output=True, text=True, check=True
    )
    assert done.stdout == "submitted 5 jobs, the last is 5\n"
    record = Path(slurm["RECORD"])
    calls = [line.split("\0")[:-1] for line in (record / "arguments").read_text().splitlines()]
    assert [[word for word in call if word.startswith("--dependency")] for call in calls] == [
        [], [], ["--dependency=afterok:1"], ["--dependency=afterok:1:2"], ["--dependency=afterok:1:2:3:4"],
    ]  # fmt: skip
    assert all("--account=my lab" in call and f"--output={scripts}/%x-%j.out" in call for call in calls)
    assert not [path for path in record.glob("*.out") if "exit" in path.read_text()]
    assert look(out).complete
    assert (out / "results.json").is_file()


@pytest.mark.slow
def test_a_job_near_its_time_limit_saves_its_state_and_is_requeued(tmp_path, slurm):
    suite = tmp_path / "mini.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    out, scripts = tmp_path / "run", tmp_path / "scripts"
    done = run("benchmark.run", "--suite", suite, "--out", out, "--emit-sbatch", scripts, cwd=tmp_path, env=slurm)
    assert (done.returncode, done.stderr) == (0, "")
    (script,) = scripts.glob("*-score-seed0-train.sh")
    batch = subprocess.Popen(
        ["bash", script], env={**slurm, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, start_new_session=True
    )
    points = out / "score" / "seed0" / "checkpoints"
    until(lambda: checkpoints(points), batch)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(timeout=100) == 143
    assert checkpoints(points)
    assert (Path(slurm["RECORD"]) / "requeued").read_text() == "requeue 7\n"
    assert {at.job.name: at.state for at in look(out).jobs}["score/seed0/train"] == "stopped"


@pytest.mark.slow
def test_lightning_fit_under_slurm_saves_at_a_steps_end_and_asks_for_its_requeue(tmp_path, slurm):
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "fit", "SLURM_PROCID": "0"}
    words = ("benchmark.cli", "fit", f"--config={ROOT}/configs/digits/supervised.yaml", "--checkpoint_every=1")
    words += (f"--trainer.default_root_dir={tmp_path / 'fit'}", "--trainer.enable_progress_bar=false")
    environment = {**slurm, **allocation, "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1"}
    fit = subprocess.Popen(
        [sys.executable, "-m", *words, "--trainer.max_steps=100000"], env=environment, cwd=tmp_path,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    points = tmp_path / "fit" / "checkpoints"
    until(lambda: checkpoints(points), fit)
    fit.send_signal(signal.SIGUSR1)
    _, errors = fit.communicate(timeout=100)
    assert fit.returncode == 128 + signal.SIGUSR1
    assert "error: stopped at step" in errors
    assert (Path(slurm["RECORD"]) / "requeued").read_text() == "requeue 7\n"
    assert not list((tmp_path / "fit").glob("hpc_ckpt*"))
    step = int(checkpoints(points)[-1].stem[5:])
    again = run(*words, f"--trainer.max_steps={step + 2}", "--ckpt_path=last", env=environment, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert (points / FINAL).is_file()
