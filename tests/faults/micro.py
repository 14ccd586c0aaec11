"""A suite small enough to be killed hundreds of times, and what its tests do to it."""

import contextlib
import ctypes
import functools
import json
import os
import signal
import struct
import sys
import traceback
from pathlib import Path

import yaml

import runs
from benchmark.execute import worker
from benchmark.execute.job import carry_out
from benchmark.suite.jobs import arguments
from benchmark.suite.plan import plan
from benchmark.suite.suite import load_suite

ROOT, ended, until = runs.ROOT, runs.ended, runs.until
ENVIRONMENT = {**runs.ENVIRONMENT, "PYTHONWARNINGS": "ignore"}
STEPS = 12
SHORT = {
    "trainer.enable_progress_bar": False,
    "trainer.max_steps": STEPS,
    "data.init_args.batch_size": 32,
    "checkpoint_every": 3,
}
SUITE = {
    "reference": "reference_classifier",
    "protocol": {
        "samples": 16, "noisy_draws": 1, "levels": 2, "batch": 8, "denoise_times": [0.5], "test_images": 50,
        "real_images": 60,
    },
    "cells": {
        "reference_classifier": {"config": "digits/supervised.yaml", "set": SHORT, "seed": 1000},
        "score_model": {
            "config": "digits/score_model.yaml",
            "set": {**SHORT, "model.init_args.likelihood": None, "model.init_args.sampler.init_args.steps": 2},
        },
        "gaussian": {"config": "digits/gaussian.yaml", "floor": True},
    },
}  # fmt: skip


def suite_file(folder, **cells):
    """The suite, with more cells or others of the same names."""
    path = folder / "micro.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "cells": {**SUITE["cells"], **cells}}, sort_keys=False))
    return path


def jobs(folder, **cells):
    """The jobs of the suite in ``folder / "run"``, in an order in which they can be carried out."""
    return jobs_of(suite_file(folder, **cells))


def jobs_of(path):
    """The jobs of a suite file in ``run`` beside it."""
    suite = load_suite(str(path))
    words = {
        name: arguments(cell, 0, Path(name), {key: Path(other) for key, other in cell.needs.items()})
        for name, cell in suite.cells.items()
        if cell.config is not None
    }
    return suite, plan(suite, resolved(tuple(words.items())), path.parent / "run", suite.seeds)


@functools.cache
def resolved(words):
    """Configurations with all defaults, as in a worker process."""
    worker._context.setdefault("threads", 1)
    return worker.resolve(dict(words))


def carried_out(folder, **cells):
    """Names of the stages that had to be done to finish the suite."""
    return carried_out_of(suite_file(folder, **cells))


def carried_out_of(path):
    """The same of the suite at a path."""
    suite, work, done = *jobs_of(path), []
    for job in work:

        def report(stage, steps, total, loss=None, cell=job.cell.name):
            if steps == total == 0:  # it begins
                done.append(f"{cell}/{stage}")

        carry_out(job, suite.protocol, report, lambda: False)
    return done


def numbers(run):
    """What was measured, without what it cost."""
    records = [record for path in run.glob("*/seed*/record.json") for record in json.loads(path.read_text())]
    return {
        (r["cell"], r["seed"], r["metric"], json.dumps(r["protocol"])): (r["value"], r["stderr"], r["status"])
        for r in records
        if not r["metric"].startswith(("cpu_seconds", "throughput"))
    }


def forked(work):
    """Exit code and standard error of what a copy of this process does: nothing is imported again."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(write, 2)
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            code = work() or 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with open(read, encoding="utf-8") as errors:
        told = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def forsake_privileges():
    """Let file permissions hold for this process even if it is root's."""
    if os.geteuid() == 0:
        header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
        assert ctypes.CDLL(None).capset(header, none) == 0


def started(folder, *options, module="benchmark.run", words=None, **more):
    """``python -m benchmark.run`` of the suite, or another command, in a process group of its own."""
    words = words or ("--suite", folder / "micro.yaml", "--out", "run", "--workers", "1", *options)
    return runs.started(folder, *words, module=module, env=ENVIRONMENT, **more)


def processes():
    """Parent and session of all processes that run."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, of_session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found[int(stat.parent.name)] = int(parent), int(of_session)
    return found


def session(leader):
    """Processes of a session that run."""
    return [pid for pid, (_, of_session) in processes().items() if of_session == leader]


def descendants(ancestor):
    """A process and those that it started, and they in turn, with the session of each."""
    running = processes()
    found = [ancestor]
    for pid in found:
        found += [child for child, (parent, _) in running.items() if parent == pid]
    return {pid: running[pid][1] for pid in found}


def rank(pid):
    """Which of a training's processes it is; None for others."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((word[5:].decode() for word in environment if word.startswith(b"RANK=")), None)


def killed(process):
    """Kill a process with its group, and wait until nothing of it runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not session(process.pid))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
