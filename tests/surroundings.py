"""What libraries do to a process while our code runs in it."""

import contextlib
import os
import threading


@contextlib.contextmanager
def elsewhere(folder):
    """Another thread changes the working folder to ``folder`` and back, all the time."""
    here, done = os.getcwd(), threading.Event()

    def wander():
        while not done.is_set():
            os.chdir(folder)
            os.chdir(here)

    thread = threading.Thread(target=wander)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
