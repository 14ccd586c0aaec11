"""Processes that are known by their number and their start, and that end with another."""

import json
import os
import subprocess
import sys

from benchmark.system.machine import runs_here, this_process

WATCHER = """
import sys, time
from benchmark.system.machine import end_with
end_with(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(100)
"""


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])


def watcher(process):
    started = subprocess.Popen([sys.executable, "-c", WATCHER, str(process)], stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "watching\n"
    return started


def test_a_process_that_has_ended_does_not_run_even_if_nobody_asked_how_it_ended():
    code = "import json; from benchmark.system.machine import this_process; print(json.dumps(this_process()))"
    ended = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    about = json.loads(ended.stdout.read())
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not runs_here(about)
    assert runs_here(this_process())
    ended.wait()


def test_a_process_ends_with_another_that_is_not_its_parent_and_whose_end_nobody_takes_in():
    other = sleeper()
    bound = watcher(other.pid)
    other.kill()
    assert bound.wait(timeout=30) == 1
    other.wait()


def test_a_process_ends_at_once_if_the_other_has_ended_before():
    other = sleeper()
    other.kill()
    other.wait()
    started = subprocess.Popen([sys.executable, "-c", WATCHER, str(other.pid)], stdout=subprocess.DEVNULL)
    assert started.wait(timeout=30) == 1
