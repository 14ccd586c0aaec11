"""Every test runs on one thread with random numbers that are a function of its name alone."""

import os
from collections.abc import Iterator

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from methods.diffusion.noise import keyed_seed

torch.set_num_threads(1)
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # in processes that tests start
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="times a run is killed in tests/faults/test_kills.py")
    parser.addoption("--cases", type=int, default=300, help="spoilt files in tests/faults/test_fuzz.py")
    parser.addoption(
        "--case", metavar="DOOR:NUMBER", action="append", default=[], help="a spoilt file of tests/faults/test_fuzz.py"
    )


@pytest.fixture(autouse=True)
def keyed_randomness(request: pytest.FixtureRequest) -> None:
    torch.manual_seed(keyed_seed("test", request.node.nodeid))


@pytest.fixture
def much_memory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """For tests that fill gigabytes: one at a time, in all test processes."""
    base = tmp_path_factory.getbasetemp()
    with FileLock((base if worker_id == "master" else base.parent) / "memory.lock"):
        yield
