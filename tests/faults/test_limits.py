"""Machines that lack something: one line says what, and no traceback."""

import errno
import shutil
import subprocess
import sys

import pytest
from faults import micro

from benchmark.errors import InputError, lacking

FILES = "error: too many open files; raise their limit (ulimit -n) or run fewer processes (--workers)\n"
MEMORY = "error: not enough memory, or not enough processes allowed: "
SHARED = "error: shared memory (/dev/shm) cannot be used: "


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


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=False).returncode != 0
    if shutil.which("unshare") else True,
    reason="shared memory can be made small by root alone",
)  # fmt: skip
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
