"""Worker processes of one machine."""

import threading
import time

import pytest

from benchmark.execute.local import LocalEngine


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
