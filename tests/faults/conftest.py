"""Faults and what must come of them; each is a test of this folder or of another.

===== ============================================ ==============================================================
fault what happens                                 test
===== ============================================ ==============================================================
1     kill -9 in a training                        benchmark/test_resume, faults/test_kills
2     kill -9 in the middle of writing             benchmark/test_callbacks, faults/test_checkpoints
3     $TMPDIR on another file system               faults/test_checkpoints
4     disk full                                    benchmark/test_callbacks, faults/test_disks
5     checkpoint damaged                           faults/test_checkpoints
6     data set damaged                             datamodules/test_mnist, test_vision, test_image_files
7     loss, gradient or sample not a number        benchmark/test_callbacks, test_resume, faults/test_divergence
8     a device's process killed                    faults/test_several_devices
9, 10 a node lost, a zombie of it                  the Ray engine's tests
11    two runs in one folder                       faults/test_ownership
12    lock of a process that was killed            faults/test_ownership
13    Ctrl-C, once and twice                       benchmark/test_resume, test_run, faults/test_signals
14    SIGTERM to all processes                     faults/test_signals, benchmark/training/test_torchrun
15    read-only output                             faults/test_disks
16    clock set back                               benchmark/test_callbacks, faults/test_checkpoints
17    SLURM's variables                            benchmark/training/test_torchrun
18    out of memory                                faults/test_memory
19    kill -9 of a run, a worker or both           faults/test_kills, benchmark/test_run
20    manifest tampered with, code changed         faults/test_tampering, benchmark/test_stages, test_plan
21    resumed on other devices                     benchmark/training/test_torchrun, test_callbacks, test_spread
22    stuck cell                                   benchmark/test_run
23    samples damaged                              faults/test_tampering
24    exception inside validation                  benchmark/test_callbacks
25    screen closed, full or left                  faults/test_screens
26    other processes take most of the machine     faults/test_busy
27    files changed at random                      faults/test_fuzz
===== ============================================ ==============================================================
"""

import shutil

import pytest
from faults import micro
from filelock import FileLock


@pytest.fixture(scope="session")
def whole(tmp_path_factory, worker_id):
    """The folder of a finished micro suite, made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    with FileLock(base / "micro.lock"):
        if not (base / "micro").exists():
            (base / "micro.part").mkdir()
            micro.carried_out(base / "micro.part")
            (base / "micro.part").rename(base / "micro")
    return base / "micro"


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of it, to spoil."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path
