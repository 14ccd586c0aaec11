"""What a configuration may have written: files in the training's folder, and none elsewhere."""

import json
import os

import pytest
import torch

from benchmark.errors import InputError
from benchmark.training.build import build as build_trainer
from benchmark.training.checkpoints import AtomicCheckpointIO
from benchmark.training.torchrun import ROOT

WORDS = (f"--config={ROOT}/configs/digits/supervised.yaml", "--trainer.enable_progress_bar=false")
CALLBACKS, LOGGERS, PROFILERS = (f"lightning.pytorch.{part}" for part in ("callbacks", "loggers", "profilers"))


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build a trainer whose folder is ``root`` with a further part, under a key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()

    def build(key, path, **settings):
        part = json.dumps({"class_path": path, "init_args": settings})
        return build_trainer([*WORDS, f"--trainer.default_root_dir={tmp_path / 'root'}", f"--trainer.{key}={part}"])

    return build


OUTSIDE = [
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"filename": "../../x"}),
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"filename": "/tmp/x"}),
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"dirpath": "best"}),
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"dirpath": "root/away"}),
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"dirpath": "memory://x"}),
    ("callbacks", f"{CALLBACKS}.OnExceptionCheckpoint", {"dirpath": ".."}),
    ("callbacks", f"{CALLBACKS}.OnExceptionCheckpoint", {"dirpath": "", "filename": "../x"}),
    ("callbacks", "lightning.pytorch.callbacks.spike.SpikeDetection", {"exclude_batches_path": "../x.json"}),
    ("logger", f"{LOGGERS}.CSVLogger", {"save_dir": "logs"}),
    ("logger", f"{LOGGERS}.CSVLogger", {"save_dir": "root", "name": "../../x"}),
    ("logger", f"{LOGGERS}.TensorBoardLogger", {"save_dir": "root", "version": "../../x"}),
    ("logger", f"{LOGGERS}.TensorBoardLogger", {"save_dir": "root", "sub_dir": "../../../x"}),
    ("profiler", f"{PROFILERS}.SimpleProfiler", {"dirpath": "..", "filename": "x"}),
]


@pytest.mark.parametrize(("key", "path", "settings"), OUTSIDE)
def test_what_would_be_written_elsewhere_is_refused_in_one_line(build, tmp_path, key, path, settings):
    (tmp_path / "root" / "away").symlink_to(tmp_path)
    with pytest.raises(
        InputError, match=rf"^{path.rpartition('.')[2]} would write to .*, outside the training's"
    ) as told:
        build(key, path, **settings)
    assert "\n" not in str(told.value)
    assert os.listdir(tmp_path) == ["root"]


INSIDE = [
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"filename": "{epoch}-{val/loss:.2f}"}),
    ("callbacks", f"{CALLBACKS}.ModelCheckpoint", {"dirpath": "root/best", "filename": "sub/{step}"}),
    ("logger", f"{LOGGERS}.CSVLogger", {"save_dir": "root"}),
    ("profiler", f"{PROFILERS}.SimpleProfiler", {"dirpath": "root", "filename": "times"}),
]


@pytest.mark.parametrize(("key", "path", "settings"), INSIDE)
def test_what_is_written_below_the_training_is_not_refused(build, key, path, settings):
    assert build(key, path, **settings).trainer is not None


def test_checkpoints_are_written_and_deleted_below_the_training_alone(tmp_path):
    """A name can become absolute when it is filled in: ``{epoch:/>4}``."""
    writer, other = AtomicCheckpointIO(tmp_path / "root"), tmp_path / "other.ckpt"
    writer.save_checkpoint({"step": torch.tensor(1)}, tmp_path / "root" / "a" / "x.ckpt")
    other.touch()
    for path in (other, tmp_path / "root" / ".." / "other.ckpt"):
        with pytest.raises(InputError, match=f"^checkpoints go to {tmp_path}/root and below, not to "):
            writer.save_checkpoint({}, path)
        with pytest.raises(InputError):
            writer.remove_checkpoint(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.ckpt", "root"]
    writer.remove_checkpoint(tmp_path / "root" / "a" / "x.ckpt")
    assert os.listdir(tmp_path / "root" / "a") == []
