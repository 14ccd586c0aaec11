"""Disks that are full, and folders that are closed."""

import contextlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from faults import micro
from lightning.pytorch.callbacks import Callback

from benchmark import cli, run
from benchmark.errors import InputError
from benchmark.metrics import published_networks
from benchmark.training.build import build
from benchmark.training.checkpoints import checkpoints, newest_checkpoint
from methods.networks.published.known import KNOWN, find


def words(root):
    options = ("--trainer.max_steps=4", "--checkpoint_every=1", "--trainer.logger=false")
    root = f"--trainer.default_root_dir={root}"
    return ["--config=configs/digits/supervised.yaml", root, *options, "--trainer.enable_progress_bar=false"]


@pytest.fixture
def closed(tmp_path):
    """A folder in which nothing can be written."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    return folder


def without_privileges(work):
    def unprivileged():
        micro.forsake_privileges()
        return work()

    return micro.forked(unprivileged)


def test_a_training_whose_disk_is_full_fails_naming_file_size_and_space_and_keeps_its_points(tmp_path, monkeypatch):
    monkeypatch.chdir(micro.ROOT)

    def work():
        class Limit(Callback):
            def on_train_batch_start(self, trainer, *args):
                if trainer.global_step == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))

        built = build(words(tmp_path))
        built.trainer.callbacks.insert(0, Limit())
        try:
            built.trainer.fit(built.model, datamodule=built.datamodule)
        except InputError as error:
            os.write(2, f"{error}\n".encode())
            return error.code
        return 0

    code, told = micro.forked(work)
    points = tmp_path / "checkpoints"
    assert code == 4
    assert re.fullmatch(
        rf"cannot write {points}/step=00000003.ckpt: File too large \(0\.5 MiB were written, [\d.]+ MiB are free\)\n",
        told,
    )
    assert [path.name for path in checkpoints(points)] == ["step=00000001.ckpt", "step=00000002.ckpt"]
    assert newest_checkpoint(points) == checkpoints(points)[-1]


def test_a_closed_folder_is_refused_before_anything_is_trained(tmp_path, closed, monkeypatch):
    monkeypatch.chdir(micro.ROOT)
    suite = micro.suite_file(tmp_path)
    code, told = without_privileges(lambda: run.main(["--suite", str(suite), "--out", str(closed / "run")]))
    assert (code, told) == (
        2, f"error: cannot write to {closed / 'run'}: Permission denied; choose another folder with --out\n",
    )  # fmt: skip
    option = "choose another folder with --trainer.default_root_dir"
    code, told = without_privileges(lambda: cli.main(["fit", *words(closed)]))
    assert (code, told) == (2, f"error: cannot write to {closed}: Permission denied; {option}\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "checkpoints").mkdir(mode=0o500)
    code, told = without_privileges(lambda: cli.main(["fit", *words(root)]))
    assert (code, told) == (2, f"error: cannot write to {root / 'checkpoints'}: Permission denied; {option}\n")


@pytest.mark.parametrize("weights", ["published", "inception"])
def test_weights_that_cannot_be_kept_are_refused_with_a_remedy(tmp_path, closed, monkeypatch, weights):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(closed / "hub"))
    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(published_networks, "INCEPTION_URL", (tmp_path / "weights").as_uri())

    def work():
        try:
            find(next(iter(KNOWN))) if weights == "published" else published_networks.InceptionFeatures()
        except (InputError, OSError, ValueError) as error:
            os.write(2, f"{error}\n".encode())
            return 2
        return 0

    code, told = without_privileges(work)
    assert code == 2
    assert told.count("\n") == 1
    assert "Permission denied" in told
    assert re.search("name a local file|name that by --weights", told), told


@contextlib.contextmanager
def small_disk(size):
    """A file system of so many MiB."""
    folder = Path(tempfile.mkdtemp())
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", folder]
    if shutil.which("mount") is None or subprocess.run(mounted, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def fill(folder, leave):
    """Leave so many bytes free."""
    free = shutil.disk_usage(folder).free
    with open(folder / "ballast", "wb") as file:
        file.write(bytes(free - leave))


@pytest.mark.slow
def test_a_run_whose_disk_is_full_fails_its_cells_in_one_line_each_and_goes_on_when_there_is_room(whole):
    with small_disk(140) as folder:
        micro.suite_file(folder)
        process = micro.started(folder)
        micro.until(lambda: list((folder / "run").glob("*/seed*/checkpoints/step*6.ckpt")), process)
        fill(folder, 2**16)
        code, output, errors = micro.ended(process)
        assert "Traceback" not in output + errors
        assert code == 4, errors
        assert re.search(r"cannot write \S+: No space left on device", errors)
        (folder / "ballast").unlink()
        code, output, errors = micro.ended(micro.started(folder))
        assert code == 0, errors
        assert micro.numbers(folder / "run") == micro.numbers(whole / "run")
