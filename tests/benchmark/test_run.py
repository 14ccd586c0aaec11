"""A suite as a user runs it: it completes, resumes, survives being killed, and refuses in one line."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmark.cost.times import most_urgent_first
from benchmark.errors import MEMORY_HINT, MachineError
from benchmark.execute.local import LocalEngine
from benchmark.results.answers_file import Answers
from benchmark.results.results_file import read_results
from benchmark.run import main
from benchmark.suite.protocol import Protocol
from benchmark.system import gpus
from benchmark.system.lock import owned
from runs import ENVIRONMENT, ROOT, SHORT, ended, job, measured, started, until

SAMPLER = {"model.init_args.sampler.init_args.steps": 3}
MEASURED = ("value", "stderr", "status", "reason")
SUITE = {
    "reference": "reference_classifier",
    "protocol": {"samples": 24, "noisy_draws": 1, "levels": 2, "batch": 100, "denoise_times": [0.5]},
    "cells": {
        "reference_classifier": {"config": "digits/supervised.yaml", "seed": 1000, "set": SHORT},
        "score_model": {
            "config": "digits/score_model.yaml", "set": {**SHORT, **SAMPLER, "model.init_args.likelihood": None}
        },
        "noisy_classifier": {
            "config": "digits/noisy_classifier.yaml", "set": {**SHORT, **SAMPLER}, "guidance_scales": [1],
        },
        "held_out_images": {"images": "test", "floor": True},
        "gaussian": {"config": "digits/gaussian.yaml", "floor": True},
    },
}  # fmt: skip


def suite_file(folder, name="mini", **cells):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "cells": {**SUITE["cells"], **cells}}, sort_keys=False))
    return path


def run(folder, *options):
    """Exit code, output and errors of a run."""
    return ended(started(folder, *options))


def numbers(out):
    """Measured numbers of a run."""
    return measured(json.loads((out / "results.json").read_text())["records"])


def children(pid):
    """Processes started by a process."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):  # of each of its threads
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def workers(pid):
    """Worker processes of a run; its resource tracker is none."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def gone(processes, seconds=10):
    """Wait for processes to end."""
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), seconds=seconds)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A finished run: its folder, its suite file, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("complete")
    start = time.monotonic()
    code, output, errors = run(folder, "--suite", suite_file(folder), "--out", "run")
    assert (code, errors) == (0, ""), output
    return folder / "run", folder / "mini.yaml", time.monotonic() - start


@pytest.fixture
def copied(complete, tmp_path):
    """A copy of the finished run, to spoil."""
    shutil.copytree(complete[0], tmp_path / "run")
    shutil.copy(complete[1], tmp_path)
    return tmp_path / "run", tmp_path / "mini.yaml"


# A run


@pytest.mark.slow
def test_a_run_measures_every_cell_and_tabulates(complete):
    out, _, _ = complete
    found = numbers(out)
    assert {cell for cell, *_ in found} == SUITE["cells"].keys()
    assert {status for _, _, status, _ in found.values()} == {"ok", "n/a"}
    measured = {(cell, metric) for (cell, _, metric, _), (value, *_) in found.items() if value is not None}
    assert {("noisy_classifier", "accuracy/clean"), ("score_model", "fd"), ("gaussian", "nll")} <= measured
    assert all(cell in (out / "results.md").read_text() for cell in SUITE["cells"])
    assert {path.name for path in out.iterdir()} >= {"results.json", "results.csv", "results.md", "plan.json"}
    answers = Answers(out / "answers.npz")
    answers.check(read_results(out / "results.json"))
    assert answers.of("noisy_classifier", 0, "accuracy/noisy").shape == (360,)


@pytest.mark.slow
def test_a_finished_run_is_tabulated_again_to_the_same_bytes_without_torch(copied):
    out, suite = copied
    before = {name: (out / name).read_bytes() for name in ("results.md", "results.csv", "results.json")}
    for name in before:
        (out / name).unlink()
    command = [sys.executable, "-X", "importtime", "-m", "benchmark.run", "--suite", suite, "--out", out]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "yaml" in imported
    assert not imported & {"torch", "lightning"}


@pytest.mark.slow
def test_a_dry_run_shows_what_is_left_and_changes_nothing(copied, tmp_path):
    out, suite = copied
    shutil.rmtree(out / "gaussian" / "seed0" / "stages")
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    code, output, _ = run(tmp_path, "--suite", suite, "--out", out, "--dry-run")
    assert code == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before
    lines = [line.split() for line in output.splitlines()]
    done = {words[0]: words[2].split("/") for words in lines if words[0] in SUITE["cells"]}
    left = {name for name in SUITE["cells"] if done[name][0] != done[name][1]}
    assert left == {"gaussian"}
    assert done["gaussian"][0] == "0"


@pytest.mark.slow
def test_a_dry_run_in_a_new_place_leaves_no_trace(complete, tmp_path):
    code, output, _ = run(tmp_path, "--suite", complete[1], "--dry-run", "--seeds", "3,4")
    assert code == 0
    assert re.search(r"^score_model +2 +0/", output, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_the_named_cell_is_tabulated_and_what_it_needs_is_trained(complete, tmp_path):
    out = tmp_path / "run"
    code, _, errors = run(tmp_path, "--suite", complete[1], "--out", out, "--only", "gaussian", "--workers", 1)
    assert (code, errors) == (0, "")
    found, whole = numbers(out), numbers(complete[0])
    assert found == {key: value for key, value in whole.items() if key[0] == "gaussian"}
    assert {path.parent.parent.parent.name for path in out.rglob("final.ckpt")} == {"gaussian", "reference_classifier"}
    assert not (out / "score_model").exists()


@pytest.mark.slow
def test_settings_are_checked_on_the_cells_that_are_asked_for(tmp_path, capsys):
    (tmp_path / "micro.yaml").write_text(yaml.safe_dump(SUITE))
    words = ["--suite", str(tmp_path / "micro.yaml"), "--out", str(tmp_path / "run"), "--workers", "1", "--dry-run"]
    words += ["--name", "narrow", "--set", "model.init_args.label_smoothing=0.1"]
    assert main(words) == 2
    assert "cell gaussian: " in capsys.readouterr().err
    assert main([*words, "--only", "reference_classifier"]) == 0
    assert main([*words, "--only", "gaussian"]) == 2
    assert "cell gaussian: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_folder_of_another_suites_run_is_refused_and_kept(copied, tmp_path):
    out, _ = copied
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, _, errors = run(tmp_path, "--suite", suite_file(tmp_path, "other"), "--out", out)
    assert (code, errors.count("\n")) == (2, 1)
    assert "holds a run of suite mini; choose another folder with --out" in errors
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    wrong = {"config": "digits/gaussian.yaml", "set": {"model.init_args.none": 1}}
    code, _, errors = run(tmp_path, "--suite", suite_file(tmp_path, "other", wrong=wrong), "--out", out, "--fresh")
    assert code == 2, errors
    assert json.loads((out / "plan.json").read_text())["suite"] == "mini"


@pytest.mark.slow
def test_other_seeds_and_a_fresh_start_do_what_they_say(copied, tmp_path):
    out, suite = copied
    whole = numbers(out)
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("final.ckpt")}
    code, output, _ = run(tmp_path, "--suite", suite, "--out", out, "--seeds", "0, 7", "--only", "gaussian", "--fresh")
    assert code == 0
    assert "rows:    5 by cell and seed, 2 carried out now: gaussian with seeds 0, 7\n" in output
    again = {path.relative_to(out).parts[0] for path, at in trained.items() if path.stat().st_mtime_ns != at}
    assert again == {"gaussian", "reference_classifier"}
    found = numbers(out)
    kept = {("score_model", 0), ("noisy_classifier", 0), ("held_out_images", 0)}  # finished before, and left alone
    assert {(cell, seed) for cell, seed, *_ in found} == {("gaussian", 0), ("gaussian", 7)} | kept
    assert all(found[key] == whole[key] for key in found if key[1] != 7)


# Killed, interrupted, held


@pytest.mark.slow
@pytest.mark.parametrize("whole_tree", [True, False], ids=["all processes", "the parent alone"])
def test_a_run_killed_again_and_again_ends_with_the_same_values(complete, tmp_path, whole_tree):
    out, suite, seconds = complete
    for part in (0.45, 0.6, 0.75):
        process = started(tmp_path, "--suite", suite, "--out", "run")
        time.sleep(part * seconds)
        alive = workers(process.pid)
        if whole_tree:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        gone(alive)
    code, output, errors = run(tmp_path, "--suite", suite, "--out", "run")
    assert code == 0, output
    # Unless the last one had come to its end.
    note = f"note: {tmp_path / 'run'} is taken over from process {process.pid} on "
    assert errors == "" or (errors.startswith(note) and errors.count("\n") == 1)
    assert numbers(tmp_path / "run") == numbers(out)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_job_tried_again(complete, tmp_path):
    out, suite, _ = complete
    process = started(tmp_path, "--suite", suite, "--out", "run")
    until(lambda: list((tmp_path / "run").glob("*/seed*/checkpoints/*.ckpt")))
    victims = workers(process.pid)
    os.kill(victims[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=500)
    assert (process.returncode, errors) == (0, ""), output
    assert numbers(tmp_path / "run") == numbers(out)


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_does(complete, tmp_path):
    out, suite, _ = complete
    process = started(tmp_path, "--suite", suite, "--out", "run")
    until(lambda: list((tmp_path / "run").glob("*/seed*/checkpoints/*.ckpt")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert errors.splitlines() == [
        "stopping: running jobs save their state (again to stop at once)",
        f"stopped; finished work is kept, go on with: python -m benchmark.run --suite {suite} --out run",
    ]
    code, _, errors = run(tmp_path, "--suite", suite, "--out", "run")
    assert (code, errors) == (0, "")
    assert numbers(tmp_path / "run") == numbers(out)


def test_an_interrupt_while_configurations_are_read_ends_the_run_at_once(tmp_path):
    process = started(tmp_path, "--suite", suite_file(tmp_path), "--out", "run")
    until(lambda: workers(process.pid))
    alive = workers(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, output, errors) == (130, "reading 4 configurations\n", "")
    gone(alive)
    assert not list((tmp_path / "run").glob("*/seed*"))


def test_a_run_that_is_terminated_in_its_first_seconds_leaves_nothing(tmp_path):
    process = started(tmp_path, "--suite", suite_file(tmp_path), "--out", "run")
    until(lambda: (tmp_path / "run/owner.json").exists() and workers(process.pid))
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, output, errors) == (143, "reading 4 configurations\n", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_cell_that_diverges_is_failed_with_step_and_term_and_the_others_go_on(copied, tmp_path):
    out, _ = copied
    whole = numbers(out)
    wild = {"config": "digits/supervised.yaml", "set": {**SHORT, "optimizer.init_args.lr": 1e30}}
    suite = suite_file(tmp_path, diverges=wild)
    code, _, errors = run(tmp_path, "--suite", suite, "--out", out)
    assert code == 4
    told = "diverged: loss is not finite at step 2: classify"
    assert f"failed: diverges/seed0/train: {told}" in errors
    assert "Traceback" not in errors
    found = numbers(out)
    failed = {key: value for key, value in found.items() if key[0] == "diverges"}
    assert {(value, status, reason) for value, _, status, reason in failed.values()} == {(None, "failed", told)}
    assert {key: value for key, value in found.items() if key[0] != "diverges"} == whole
    assert "Traceback" in (out / "diverges" / "seed0" / "log").read_text()


# What is refused


@pytest.fixture
def refusal(tmp_path):
    """The message with which a run is refused: exit code 2 and one line on standard error, after what it told."""

    def refusal(*options, told=""):
        code, output, errors = run(tmp_path, *options)
        assert (code, output) == (2, told), errors
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        return errors.removeprefix("error: ").strip()

    return refusal


def test_an_unknown_suite_is_answered_with_those_there_are(refusal):
    message = refusal("--suite", "digist")
    assert message.startswith("no suite named 'digist'; did you mean digits? there are: ")
    assert "digits" in message.partition("there are: ")[2].split(", ")


def test_a_folder_in_use_is_refused_naming_who_holds_it(refusal, tmp_path):
    with owned(tmp_path / "run", "--out"):
        message = refusal("--suite", suite_file(tmp_path), "--out", "run")
    assert message.startswith(
        f"{tmp_path / 'run'} is in use by process {os.getpid()} on {os.uname().nodename} since 20"
    )
    with owned(tmp_path / "run", "--out"):  # once let go, it can be taken again
        assert json.loads((tmp_path / "run" / "owner.json").read_text())["pid"] == os.getpid()


def test_a_folder_whose_holder_was_killed_can_be_taken(tmp_path):
    hold = "import sys, time; from pathlib import Path; from benchmark.system.lock import owned\n"
    hold += "with owned(Path(sys.argv[1]), '--out'): print('held', flush=True); time.sleep(100)"
    holder = subprocess.Popen([sys.executable, "-c", hold, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    assert (tmp_path / "run" / "owner.json").exists()
    with owned(tmp_path / "run", "--out"):
        assert json.loads((tmp_path / "run" / "owner.json").read_text())["pid"] == os.getpid()


def test_an_output_that_is_a_file_is_refused(refusal, tmp_path):
    (tmp_path / "taken").write_text("")
    told = f"cannot write to {tmp_path / 'taken'}: File exists; choose another folder with --out"
    assert refusal("--suite", suite_file(tmp_path), "--out", "taken") == told
    told = f"cannot write to {tmp_path / 'taken/below'}: Not a directory; choose another folder with --out"
    assert refusal("--suite", suite_file(tmp_path), "--out", "taken/below") == told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(refusal, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    told = f"cannot write to {tmp_path / 'closed/run'}: Permission denied; choose another folder with --out"
    assert refusal("--suite", suite_file(tmp_path), "--out", "closed/run") == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--only", "gausian"),
            "--only: no cell 'gausian' in suite mini; there are: reference_classifier, score_model,",
        ),
        (("--seeds", "0,zero"), "--seeds: seeds must be distinct integers from 0 to 2^32 - 1, got [0, 'zero']"),
        (("--seeds", "1,1"), "--seeds: seeds must be distinct integers from 0 to 2^32 - 1, got [1, 1]"),
        (("--seeds", "-1"), "--seeds: seeds must be distinct integers"),
        (("--workers", "0"), "--workers must be 1 to 1024, got 0"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(capsys, tmp_path, options, told):
    option, value = options
    assert main(["--suite", str(suite_file(tmp_path)), "--out", str(tmp_path / "run"), f"{option}={value}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {told}")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_configuration_that_cannot_be_used_is_refused_before_anything_is_run(refusal, tmp_path):
    wrong = {"config": "digits/supervised.yaml", "set": {"trainer.max_steps": "many"}}
    options = ("--suite", suite_file(tmp_path, wrong=wrong), "--out", "run", "--workers", 1)
    message = refusal(*options, told="reading 5 configurations\n")
    assert message == "cell wrong: command line: trainer.max_steps: expected int, got many"
    assert not (tmp_path / "run").exists()


# Folders and environment


def test_a_home_folder_is_found_behind_an_equals_sign(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "taken").write_text("")
    suite_file(tmp_path)
    assert main(["--suite=~/mini.yaml", "--out=~/taken"]) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot write to {tmp_path / 'taken'}: File exists")
    assert main(["--suite=~/mini.yaml", "--data-root=~/none"]) == 2
    assert capsys.readouterr().err == f"error: --data-root: no folder at {tmp_path / 'none'}\n"


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_a_call_leaves_the_environment_as_it_was(tmp_path, monkeypatch, before):
    monkeypatch.delenv("DIFFCLASS_DATA", raising=False)
    if before:
        monkeypatch.setenv("DIFFCLASS_DATA", before)
    kept = dict(os.environ)
    (tmp_path / "taken").write_text("")
    suite, out = str(suite_file(tmp_path)), str(tmp_path / "taken")
    assert main(["--suite", suite, "--out", out, "--data-root", str(tmp_path), "--weights", str(tmp_path)]) == 2
    assert dict(os.environ) == kept


def test_a_working_folder_that_was_deleted_is_refused_in_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    words = [sys.executable, "-m", "benchmark.run"]
    process = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *words, "--suite", suite_file(tmp_path), "--out", "run"],
        cwd=tmp_path / "gone", env=ENVIRONMENT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "error: the working folder was deleted; change to another one and start again\n"


# Its parts


def test_help_comes_without_heavy_packages():
    command = [sys.executable, "-X", "importtime", "-m", "benchmark.run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "yaml" in imported
    assert not imported & {"torch", "lightning", "torchmetrics", "sklearn", "matplotlib"}
    assert "--suite NAME" in done.stdout


def a_machine(folder, monkeypatch, listed, *devices):
    """Let GPUs be looked for in a folder, as on a machine whose driver lists some and that has some devices."""
    driver, there = folder / "driver", folder / "dev"
    there.mkdir()
    for number in range(listed):
        (driver / f"0000:{number:02}:00.0").mkdir(parents=True)
    for device in devices:
        (there / device).touch()
    monkeypatch.setattr(gpus, "DRIVER", driver)
    monkeypatch.setattr(gpus, "DEVICES", there)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        *[(None, list("01234567")), ("", []), ("-1", []), ("0", ["0"]), ("2, 5", ["2", "5"]), ("0,-1,3", ["0"])],
        *[("1,8,2", ["1"]), ("GPU-3f,MIG-7", ["GPU-3f", "MIG-7"])],
    ],
)
def test_gpus_are_those_the_environment_shows(tmp_path, monkeypatch, named, found):
    a_machine(tmp_path, monkeypatch, 8, *(f"nvidia{number}" for number in range(8)), "nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible_gpus() == found
    assert LocalEngine().workers == (len(found) or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("named", ["0", "0,1", "GPU-3f", ""])
def test_a_machine_without_gpus_has_none_whatever_the_environment_says(tmp_path, monkeypatch, named):
    a_machine(tmp_path, monkeypatch, 0, "null")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible_gpus() == []
    assert LocalEngine().workers == len(os.sched_getaffinity(0))


def test_gpus_that_a_container_is_not_given_or_that_cannot_be_counted(tmp_path, monkeypatch):
    (tmp_path / "few").mkdir()
    (tmp_path / "amd").mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    a_machine(tmp_path / "few", monkeypatch, 8, "nvidia3", "nvidiactl", "nvidia-uvm")
    assert gpus.visible_gpus() == ["0"]
    a_machine(tmp_path / "amd", monkeypatch, 0, "kfd")
    assert gpus.visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    assert gpus.visible_gpus() == ["0", "7"]


def test_a_job_whose_workers_all_die_is_failed(tmp_path):
    doomed = job(folder=tmp_path)
    with LocalEngine(1) as engine, ThreadPoolExecutor(1) as beside:
        running = beside.submit(engine.run, [doomed], Protocol(), lambda message: None)
        killed = set()
        while not running.done():
            for pid in set(workers(os.getpid())) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
    error = f"its worker process died twice (killed, or out of memory: then {MEMORY_HINT})"
    assert running.result() == {doomed.name: {"job": doomed.name, "status": "failed", "error": error}}
    assert len(killed) == 2


@pytest.mark.parametrize("deaths", [1, 2])
def test_what_a_worker_was_asked_is_asked_again_where_it_dies(deaths):
    """As when configurations are read: the process is killed so many times."""
    with LocalEngine(1) as engine, ThreadPoolExecutor(1) as beside:
        asked = beside.submit(engine.ask, time.sleep, 4)
        killed = set()
        while len(killed) < deaths:
            for pid in set(workers(os.getpid())) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
        if deaths == 1:
            assert asked.result() is None
        else:
            with pytest.raises(MachineError, match=r"died twice \(killed, or out of memory\)"):
                asked.result()


@pytest.mark.slow
def test_a_worker_that_dies_while_idle_is_replaced():
    cell = {"a": ("--config=configs/digits/supervised.yaml", "--seed_everything=0")}
    with LocalEngine(1) as engine:
        found = engine.resolve(cell)
        (pid,) = workers(os.getpid())
        os.kill(pid, signal.SIGKILL)
        gone([pid])
        time.sleep(1)  # for the pool to notice
        assert engine.resolve(cell) == found


@pytest.mark.slow
def test_a_job_that_is_silent_too_long_is_tried_again_and_then_failed(tmp_path, monkeypatch):
    """Its process imports a module of a user that never ends; the process beside it goes on."""
    (tmp_path / "sleeper.py").write_text("import time\n\ntime.sleep(3600)\n")
    monkeypatch.setenv("DIFFCLASS_ALLOW", "sleeper")
    monkeypatch.syspath_prepend(tmp_path)
    words = (f"--config={ROOT / 'configs' / 'digits' / 'supervised.yaml'}", "--model.class_path=sleeper.Sleeper")
    silent = job(folder=tmp_path / "a", arguments=words)
    beside = replace(job("b", folder=tmp_path / "b"), stages=())
    with LocalEngine(2, patience=60) as engine:  # on a busy machine a process alone takes half a minute to start
        results = engine.run([silent, beside], Protocol(), lambda message: None)
    error = "timeout: nothing was heard from it for 1 minutes; its log may say more"
    assert results[silent.name] == {"job": silent.name, "status": "failed", "error": error}
    assert results[beside.name]["status"] == "ok"


def test_the_longest_chain_starts_first_and_what_much_waits_for_where_no_cost_is_known():
    top = job("top", needs=("base/seed0/train",))
    jobs = [job("short"), job("long"), job("base"), top, job("late", after=(top.name,))]
    costs = {("short", "train"): 5, ("long", "train"): 20, ("base", "train"): 10, ("top", "train"): 9}
    names = [j.cell.name for j in most_urgent_first(jobs, costs | {("late", "train"): 2})]
    assert names == ["base", "long", "top", "short", "late"]
    assert most_urgent_first(jobs, {})[0].cell.name == "base"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "trainer.max_steps=3"], "give that one a name in results with --name NAME"),
        (["--set", "trainer.max_steps", "--name", "x"], "--set takes KEY=VALUE"),
        (["--set", "../x=3", "--name", "x"], "--set takes KEY=VALUE"),
        (["--set", "trainer.max_steps=[3", "--name", "x"], "--set trainer.max_steps, line 2: "),
        (["--name", "../x"], "--name must be 1 to 64 letters"),
        (["--budget", "huge"], "digits.yaml: no budget 'huge'; there are: paper"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(capsys, tmp_path, options, told):
    out = tmp_path / "out"
    assert main(["--suite", "digits", "--out", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not out.exists()
