"""Paths of a command, which are absolute from the start, whatever the working folder becomes."""

import os
from pathlib import Path

import pytest
from surroundings import elsewhere

from benchmark.errors import InputError
from benchmark.system.surroundings import absolute, environment, make_paths_absolute, path_option
from benchmark.training.build import build
from datamodules.stored import data_root

ROOT = Path(__file__).resolve().parents[3]
SUPERVISED = f"--config={ROOT / 'configs/digits/supervised.yaml'}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another one beside it as the working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_path_is_absolute_and_the_home_folder_is_found(home):
    assert absolute("run") == home.parent / "here/run"
    assert absolute("~/run") == home / "run"
    assert path_option("/run") == Path("/run")
    assert path_option("./~/run") == home.parent / "here/~/run"


def test_a_relative_path_in_a_deleted_folder_is_refused(home):
    (home.parent / "here").rmdir()
    with pytest.raises(InputError, match="the working folder was deleted"):
        absolute("run")
    assert absolute("~/run") == home / "run"


def test_folders_in_nested_settings_become_absolute_and_nothing_else(home):
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "name": "x"}}
    settings = {"default_root_dir": "~/run", "logger": [logger, True], "dirpath": None, "precision": "32"}
    make_paths_absolute(settings)
    assert settings["default_root_dir"] == str(home / "run")
    assert logger["init_args"] == {"save_dir": str(home.parent / "here/logs"), "name": "x"}
    assert (settings["dirpath"], settings["precision"]) == (None, "32")


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("DIFFCLASS_DATA", "before")
    monkeypatch.delenv("DIFFCLASS_WEIGHTS", raising=False)
    kept = dict(os.environ)
    with environment({"DIFFCLASS_DATA": "x", "DIFFCLASS_WEIGHTS": "y"}):
        assert (os.environ["DIFFCLASS_DATA"], os.environ["DIFFCLASS_WEIGHTS"]) == ("x", "y")
    assert dict(os.environ) == kept


def test_the_folder_of_the_data_sets_is_absolute(home, monkeypatch):
    monkeypatch.setenv("DIFFCLASS_DATA", "sets")
    assert data_root(None) == home.parent / "here/sets"
    assert data_root("~/sets") == home / "sets"


def test_a_trainer_and_its_loggers_write_where_the_command_line_said(home, tmp_path):
    """A training goes on while another thread changes the working folder all the time."""
    words = [
        *(SUPERVISED, "--trainer.default_root_dir=run", "--trainer.max_steps=4", "--data.init_args.batch_size=8"),
        *("--trainer.logger+=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=run/logs"),
        *("--trainer.logger+=lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir=run/board"),
        *("--trainer.log_every_n_steps=1", "--checkpoint_every=1", "--trainer.accelerator=cpu"),
        "--trainer.enable_progress_bar=false",
    ]
    cli = build(words)
    assert cli.trainer.default_root_dir == str(home.parent / "here/run")
    assert "default_root_dir: run\n" in cli.settings  # as it was written
    (tmp_path / "away").mkdir()
    with elsewhere(tmp_path / "away"):
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert list((tmp_path / "away").iterdir()) == []
    assert (home.parent / "here/run/checkpoints/final.ckpt").is_file()
    assert list(home.parent.glob("here/run/logs/**/metrics.csv"))
    assert list(home.parent.glob("here/run/board/**/events.out.*"))
    assert sorted(path.name for path in (home.parent / "here").iterdir()) == ["run"]
