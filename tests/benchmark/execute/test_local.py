"""Worker processes of one machine."""

import subprocess
import sys
import threading
import time

import pytest

from benchmark.execute.local import LocalEngine
from runs import ENVIRONMENT

TERMINATED_AT = """
import os, signal, sys
from multiprocessing import resource_tracker
from benchmark.execute.local import LocalEngine
from benchmark.system.signals import ended_by_signals

def main(moment):
    register, known = resource_tracker.register, []

    def terminated_after(name, kind):
        register(name, kind)
        known.append(name)
        if len(known) == moment:
            os.kill(os.getpid(), signal.SIGTERM)

    resource_tracker.register = terminated_after
    with ended_by_signals(), LocalEngine(workers=2) as engine:
        engine.ask(len, "")

if __name__ == "__main__":
    main(int(sys.argv[1]))
"""


def broken_off(stopped):
    """An engine that ends while its workers sleep."""
    with LocalEngine(workers=2) as engine:
        for each in engine._workers:
            each.submit(time.sleep, 60)
        if stopped:
            engine.stop()
        raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
def test_an_engine_that_ends_early_leaves_no_thread_behind(stopped):
    before = threading.enumerate()
    with pytest.raises(KeyboardInterrupt):
        broken_off(stopped)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in left if "Executor" in type(thread).__name__]


@pytest.mark.parametrize("moment", [1, 4, 7])
def test_an_engine_terminated_while_it_makes_a_semaphore_leaves_none_behind(tmp_path, moment):
    script = tmp_path / "script.py"  # a spawned process imports it again
    script.write_text(TERMINATED_AT)
    done = subprocess.run(
        [sys.executable, script, str(moment)], env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
