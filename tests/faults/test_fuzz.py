"""Files that were changed at random: used if they are whole all the same, else refused in one line, and nothing more.

The case of a door and a number is always the same. To see one again: ``pytest tests/faults/test_fuzz.py --case
suite_file:17``.
"""

import hashlib
import os
import resource
import shutil
import signal
from random import Random

import numpy as np
import pytest
from faults import doors, micro, preloaded
from filelock import FileLock

from benchmark import run
from benchmark.execute.job import carry_out
from benchmark.training.checkpoints import FINAL, checkpoints
from datamodules.image_files import CACHE

LONGEST = 400
SECONDS, BYTES = 10, 2**30
"""Of the processor, and of memory beyond what the libraries take."""
LONGEST_WAIT = 200
"""Seconds on the clock, of which others may have most."""


@pytest.fixture(scope="session")
def finished(whole, tmp_path_factory, worker_id):
    """A finished run of the suite with its tables, samples that fit it, and a resume point of its reference."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    with FileLock(base / "fuzz.lock"):
        if not (base / "fuzz").exists():
            made = base / "fuzz.part"
            shutil.copytree(whole, made)
            levels = np.random.default_rng(0).integers(17, size=(20, 8, 8)).astype(np.uint8)
            np.savez(made / "samples.npz", images=levels, labels=np.arange(20) % 10)
            words = ["--suite", "micro.yaml", "--out", "run", "--workers", "1"]
            command = preloaded.start(run.main, words, made, base / "fuzz.said")
            assert command.code == 0, command.errors
            resume_point(base / "fuzz.training").rename(made / "step=00000003.ckpt")
            made.rename(base / "fuzz")
    return base / "fuzz"


def resume_point(folder):
    """One of a training that was stopped."""
    folder.mkdir()
    suite, jobs = micro.jobs(folder)
    job = next(job for job in jobs if job.cell.name == "reference_classifier" and job.part == "train")
    points = job.folder / "checkpoints"
    with pytest.raises(Exception, match="stopped"):
        carry_out(job, suite.protocol, lambda *progress: None, lambda: bool(checkpoints(points)))
    assert not (points / FINAL).exists()
    return checkpoints(points)[-1]


def listing(folder):
    """All that is in a folder, with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == CACHE:
            continue
        if path.is_symlink() or not path.is_file():
            found[name] = path.readlink() if path.is_symlink() else path.stat().st_mode
        elif path.name != ".lock" and CACHE not in path.parts:  # held by who only asks; kept from one time to the next
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def limited():
    """Called in the copy of this process that is the command."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(LONGEST_WAIT)


def complaints(door, number, box, finished):
    """All that is wrong with how a command takes a spoilt file; empty if nothing is."""
    for name in ("here", "home", "tmp", "elsewhere"):
        (box / name).mkdir(parents=True)
    (box / "elsewhere/canary").write_text("canary")
    rng = Random(f"{door.__name__}:{number}")
    case = door(doors.Box(box / "here", box / "elsewhere/bait", finished, rng))
    before = listing(box)

    def alone():
        os.environ.update(HOME=str(box / "home"), TMPDIR=str(box / "tmp"))
        os.environ.pop("DIFFCLASS_DATA", None)
        limited()

    command = preloaded.start(case.main, case.words, box / "here", box.with_name(f"{box.name}.said"), alone)
    code, errors = command.code, command.errors.splitlines()
    said = (command.folder / "out").read_text(encoding="utf-8", errors="backslashreplace")
    found, after = [], listing(box)
    if code < 0:
        found.append(f"ended by {signal.Signals(-code).name}")
    elif code not in (0, 2, *case.codes):
        found.append(f"exit code {code}")
    if code == 2 and (len(errors) != 1 or not errors[0].startswith("error: ")):
        found.append(f"{len(errors)} lines of errors")
    if any(line.startswith("Traceback") for line in errors):
        found.append("a traceback")
    longest = max(map(len, errors), default=0)
    if longest > LONGEST:
        found.append(f"a line of {longest} characters")
    unprintable = {c for c in "".join(errors) + said if not c.isprintable() and c not in "\n\r\t"}
    if unprintable:
        found.append(f"unprintable characters {sorted(unprintable)}")
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    kept = {name for name in changed if code in (2, 3) or not name.startswith("here")}
    if kept:
        found.append(f"written: {sorted(kept)[:5]}")
    if code == 0 and not case.usable():
        found.append("what cannot be read was used")
    if micro.session(command.pid):
        micro.until(lambda: not micro.session(command.pid), seconds=20)
    page = box / "here/run/report.html"
    if page.exists() and page.read_text(encoding="utf-8").lower().count("<script") != 1:  # the page's own
        found.append("a script in the page")
    told = " | ".join(line[:300] for line in (*errors[:1], *errors[-2:]))
    return [f"{door.__name__}:{number}: {'; '.join(found)} -- {code}: {told!r}"] if found else []


def fuzz(folder, finished, door, numbers):
    found = []
    for number in numbers:
        box = folder / f"{door.__name__}-{number}"
        found += complaints(door, number, box, finished)
        shutil.rmtree(box)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: door.__name__)
def test_some_spoilt_files(tmp_path, finished, door):
    fuzz(tmp_path, finished, door, range(1 if door is doors.run_again else 2))


@pytest.mark.slow
@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: door.__name__)
def test_many_spoilt_files(tmp_path, finished, door, request):
    """``--cases`` says how many, of all doors together."""
    fuzz(tmp_path, finished, door, range(2, 2 + -(-request.config.getoption("--cases") // len(doors.DOORS))))


def test_named_spoilt_files(tmp_path, finished, request):
    """``--case DOOR:NUMBER`` says which; may be repeated."""
    named = [case.split(":") for case in request.config.getoption("--case")]
    if not named:
        pytest.skip("no --case was given")
    found = []
    for door, number in named:
        found += complaints(getattr(doors, door), int(number), tmp_path / f"{door}-{number}", finished)
    assert not found, "\n".join(["", *found])
