"""Commands in processes of their own, and what their runs measured."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

from benchmark.suite.jobs import Job
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SHORT = {"trainer.max_steps": 30, "data.init_args.batch_size": 32, "checkpoint_every": 5}
"""Settings of a training of seconds."""


def job(name="a", part="train", needs=(), after=(), folder=Path("none"), arguments=(), **config):
    """A job of one stage with seed 0, whose cell has a resolved configuration."""
    stages = (Stage("train" if part == "train" else "metrics", "key"),)
    cell = Cell(name, config="x.yaml")
    return Job(cell, 0, part, folder, stages, needs=needs, after=after, arguments=arguments, config=config)


def command(*words):
    """Exit code of ``lightning``, run in this process."""
    from benchmark import cli

    try:
        result = cli.main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    assert result is None
    return 0


def started(folder, *words, module="benchmark.run", env=ENVIRONMENT, **more):
    """``python -m`` a module in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)], cwd=folder, env=env, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Whatever started the tests may ignore Ctrl-C, as a shell does for what it runs in the background.
        **{"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **more},
    )  # fmt: skip


def ended(process, seconds=500):
    """Exit code, output and errors of a process."""
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def until(condition, process=None, seconds=200):
    """Wait for something that is about to happen, while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def measured(records):
    """Numbers of records by their identity, without those of costs."""
    return {
        (r["cell"], r["seed"], r["metric"], json.dumps(r["protocol"])): (
            *(r["value"], r["stderr"], r["status"], r["reason"]),
        )
        for r in records
        if not r["metric"].startswith(("cpu_seconds", "throughput"))
    }


def peak_memory(work):
    """Most bytes that Python and numpy hold while ``work`` runs, in a process to which other tests left no thread."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def measure():
        tracemalloc.stop()
        tracemalloc.start()
        work()
        sender.send(tracemalloc.get_traced_memory()[1])

    process = context.Process(target=measure)
    process.start()
    sender.close()
    peak = receiver.recv()
    process.join()
    return peak
