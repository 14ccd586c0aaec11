"""Machines that lack something: one line says what, and no traceback."""

import errno
import shutil
import subprocess
import sys

import numpy as np
import pytest
from faults import micro
from PIL import Image

from benchmark.errors import MEMORY_HINT, InputError, failure, lacking
from datamodules.streamed import TOO_LITTLE_SHARED

FILES = "error: too many open files; raise their limit (ulimit -n) or run fewer processes (--workers)\n"
MEMORY = "error: not enough memory, or not enough processes allowed: "
SHARED = "error: shared memory (/dev/shm) cannot be used: "


small_shared_memory = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=False).returncode != 0,
    reason="shared memory can be made small by root alone",
)


def run(folder, setting):
    """Exit code and errors of a run after a shell's command."""
    micro.suite_file(folder)
    words = [sys.executable, "-m", "benchmark.run", "--suite", "micro.yaml", "--out", "run", "--workers", "1"]
    done = subprocess.run(
        ["sh", "-c", f'{setting} && exec "$@"', "sh", *words], cwd=folder, env=micro.ENVIRONMENT, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("files", [8, 14])
def test_few_open_files(tmp_path, files):
    assert run(tmp_path, f"ulimit -n {files}") == (4, FILES)


def test_little_memory(tmp_path):
    code, errors = run(tmp_path, "ulimit -v 200000")
    assert code == 4
    assert errors.startswith(MEMORY)
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@small_shared_memory
@pytest.mark.parametrize(("option", "why"), [("size=4k", "No space left on device"), ("ro", "Read-only file system")])
def test_shared_memory_that_is_full_or_closed(tmp_path, monkeypatch, option, why):
    mount = f"mount -t tmpfs -o {option} tmpfs /dev/shm && {{ head -c 4096 /dev/zero > /dev/shm/full || true; }}"
    inner = f"{mount} 2>/dev/null"
    micro.suite_file(tmp_path)
    words = [sys.executable, "-m", "benchmark.run", "--suite", "micro.yaml", "--out", "run", "--workers", "1"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{inner} && exec "$@"', "sh", *words], cwd=tmp_path, env=micro.ENVIRONMENT,
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == f"{SHARED}{why}; enlarge or open it"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/x"), "too many open files"),
        (OSError(errno.ENOSPC, "No space left on device"), "shared memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/pym-1"), "shared memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/run/x"), ""),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "not enough memory"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), ""),
        (RuntimeError("a fault of ours"), ""),
        (InputError("no suite"), ""),
    ],
)
def test_what_an_error_says_is_lacking(error, told):
    assert lacking(error).startswith(told)
    assert bool(lacking(error)) == bool(told)


READ = """
from datamodules.imagenet import ImageNet
data = ImageNet("data", size=64, workers=1, validation_fraction=0.2, reference_images=8, batch_size=16)
list(data.train_dataloader())
"""


@pytest.mark.slow
@small_shared_memory
def test_shared_memory_too_small_for_a_batch_ends_a_training_with_the_remedy(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
    for number in range(40):
        path = tmp_path / f"data/imagenet/{'val' if number < 8 else 'train'}/n{number % 2}/{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(path)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"', "sh",
         sys.executable, "-c", READ],
        cwd=tmp_path, env=micro.ENVIRONMENT, text=True, capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == f"MemoryError: {TOO_LITTLE_SHARED}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 13107200000 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "13107200000 bytes asked for",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU has " + 300 * "x"), "20.00 GiB asked for"),
        (MemoryError("Unable to " + 300 * "x"), "Unable to "),
    ],
)
def test_a_lack_of_memory_leaves_room_for_what_to_do_about_it(error, said):
    told = failure(error)
    assert told.startswith(f"out of memory: {said}")
    assert told.endswith(MEMORY_HINT)
    assert len(told) < 280  # beside the name of a job and the path of its log, in a line of 399
