"""Whatever becomes of standard output and error: the work is done and written, and the exit code tells of it."""

import os
import subprocess
import sys

import pytest
from faults import micro

from benchmark.results.record import Results, failed, measured
from benchmark.results.results_file import write_results

SCREENS = {
    "closed": ">&- 2>&-",
    "all three closed": "<&- >&- 2>&-",
    "full": ">/dev/full 2>/dev/full",
    "left by its reader": "2>&1 | head -1 >/dev/null; exit ${PIPESTATUS[0]}",
}
ENCODINGS = ("ascii", "latin-1", "ascii:strict")
WORK = """
import sys
from pathlib import Path
from benchmark.errors import command, tell

@command
def main(argv):
    with open("opened") as file:
        assert file.fileno() > 2
    for number in range(20_000):
        print("loss \u00b1 \u65e5\u672c", number)
        tell(f"warning: {number}")
    Path("results").write_text("whole")
    print("more than is flushed")
    return 4

sys.exit(main([]))
"""


def on(screen, folder, *words, encoding="utf-8"):
    """Exit code of a command on a screen."""
    environment = {**os.environ, "PYTHONPATH": str(micro.ROOT), "PYTHONIOENCODING": encoding}
    shell = ["bash", "-c", f'"$@" {screen}', "bash", sys.executable, *map(str, words)]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, check=False)


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    (tmp_path / "opened").touch()
    return tmp_path


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS.keys())
def test_work_goes_on_on_any_screen(work, screen):
    assert on(screen, work, "work.py").returncode == 4
    assert (work / "results").read_text() == "whole"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_characters_that_a_screen_lacks_are_escaped(work, encoding):
    done = on("", work, "work.py", encoding=encoding)
    assert (done.returncode, (work / "results").read_text()) == (4, "whole")
    assert rb"\u65e5\u672c 19999" in done.stdout
    assert done.stdout.endswith(b"more than is flushed\n")
    assert done.stderr.endswith(b"warning: 19999\n")


@pytest.fixture
def run(tmp_path):
    """A run that is finished, with a name that not every screen can show."""
    records = [measured("\u03bb", "m", 0, "accuracy/clean", 0.5, n=10), failed("b", "m", 0, "f1", "\x1b[31mred")]
    (tmp_path / "run").mkdir()
    write_results(tmp_path / "run" / "results.json", Results("s", "c", {}, tuple(records)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("screen", [*SCREENS.values(), ""], ids=[*SCREENS.keys(), "open"])
def test_commands_end_alike_on_any_screen(run, screen):
    for encoding in ("utf-8", "ascii"):
        assert on(screen, run, "-m", "benchmark.report", "run", encoding=encoding).returncode == 0
        assert (run / "run" / "report.html").is_file()
        (run / "run" / "report.html").unlink()
    assert on(screen, run, "-m", "benchmark.compare", *["run/results.json"] * 2, encoding="ascii").returncode == 4
    assert on(screen, run, "-m", "benchmark.run", "--help", encoding="ascii").returncode == 0
    assert on(screen, run, "-m", "benchmark.run", "--suite", "\u65e5", encoding="ascii").returncode == 2
    assert on(screen, run, "-m", "benchmark.cli", "fit", "--config=\u65e5.yaml", encoding="ascii").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS.keys())
def test_a_run_is_whole_on_any_screen(tmp_path, screen):
    micro.suite_file(tmp_path)
    words = ("-m", "benchmark.run", "--suite", "micro.yaml", "--out", "run", "--workers", "1")
    assert on(screen, tmp_path, *words, encoding="ascii").returncode == 0
    assert (tmp_path / "run" / "results.md").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_python_without_the_packages_is_told_where_they_are(capsys):
    from benchmark.errors import command

    @command
    def main(argv=None):
        import no_package_of_this_name  # noqa: F401

    assert main([]) == 2
    told = capsys.readouterr().err
    assert "has no package no_package_of_this_name; use the environment that `make setup` made" in told
    assert told.count("\n") == 1
