"""Commands in copies of this process, which has imported the libraries: what takes seconds in a fresh process is done.

Nothing else differs from ``python -m``: a command has a session, a folder and standard streams of its own, and its
worker processes are its children, with no more of its open files than a fresh process would have.
"""

import contextlib
import multiprocessing.spawn
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import process as pools
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import util
from pathlib import Path
from typing import Any

import benchmark.execute.job  # noqa: F401  what a worker imports

_SPAWN = re.compile(r"spawn_main\(tracker_fd=(\d+), pipe_handle=(\d+)\)")
_started = util.spawnv_passfds
_inherited: set[int] = set()
"""Files that were open before the command began, such as those that libraries keep."""


def _open_files() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def _copied(path: bytes, words: list[str], kept: tuple[int, ...]) -> int:
    """Start what ``multiprocessing`` asks for: a worker as a copy of this process, anything else as it does."""
    asked = next(filter(None, map(_SPAWN.search, map(os.fsdecode, words))), None)
    if asked is None:
        return _started(path, words, kept)
    child = os.fork()
    if child:
        return child
    for handle in _open_files() - _inherited - {*kept}:
        with contextlib.suppress(OSError):
            os.close(handle)
    pools._threads_wakeups.clear()  # of the parent's pools, whose threads are not in the copy
    sys.argv = ["-c", "--multiprocessing-fork"]
    _carry_out(lambda: multiprocessing.spawn.spawn_main(tracker_fd=int(asked[1]), pipe_handle=int(asked[2])))
    raise AssertionError


def _carry_out(work: Callable[[], Any]) -> None:
    """Do the work and end this process as Python would."""
    code: Any = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


@dataclass
class Command:
    """A command that was started.

    Args:
        pid: Its process, the leader of a session.
        folder: Where ``out`` and ``err`` hold what it says.
    """

    pid: int
    folder: Path

    @cached_property
    def code(self) -> int:
        """Exit code, negative for the signal that ended it; waits for the end."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        if "code" in self.__dict__:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
        return not pid

    @property
    def errors(self) -> str:
        """What it has said on standard error."""
        return (self.folder / "err").read_text(encoding="utf-8", errors="backslashreplace")


def start(main: Callable[[list[str]], Any], words: list[str], cwd: Path, said: Path, before: Any = None) -> Command:
    """Start ``main(words)`` in a copy of this process.

    Args:
        main: ``main`` of a module of ``benchmark``.
        words: Its command line.
        cwd: The folder that it works in.
        said: Folder of what it says.
        before: Called in the copy, e.g. to limit it.
    """
    said.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child:
        return Command(child, said)
    os.setsid()
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    util.spawnv_passfds = _copied
    _inherited.update(_open_files())
    sys.argv = [f"{main.__module__.replace('.', '/')}.py", *words]
    if before is not None:
        before()
    _carry_out(lambda: main(words))
    raise AssertionError


def is_copy(pid: int) -> bool:
    """Whether a process is a copy of this one, as commands and their workers are."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False
