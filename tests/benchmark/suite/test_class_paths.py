"""Which classes a configuration may name: others are refused before their module runs, a user's own by permission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark import cli
from benchmark.errors import InputError
from benchmark.execute import worker
from benchmark.suite import class_paths
from benchmark.suite.jobs import arguments
from benchmark.suite.suite import load_suite
from benchmark.training.build import build

ROOT = Path(__file__).parents[3]
SUPERVISED = ROOT / "configs" / "digits" / "supervised.yaml"
OWN = """
import pathlib
pathlib.Path({mark!r}).touch()
from methods.supervised import Supervised
class Mine(Supervised): pass
class Other: pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported; its name and the mark."""
    folder, mark = tmp_path / "modules", tmp_path / "imported"
    folder.mkdir()
    (folder / "ownmethods.py").write_text(OWN.format(mark=str(mark)))
    monkeypatch.syspath_prepend(folder)
    yield "ownmethods", mark
    sys.modules.pop("ownmethods", None)


def test_a_suite_cannot_name_another_module_through_its_settings(own, tmp_path, monkeypatch):
    name, mark = own
    monkeypatch.setitem(worker._context, "threads", 1)
    for setting in ({"model": f"{name}.Mine"}, {"model.class_path": f"{name}.Mine"}, {"optimizer": f"{name}.Mine"}):
        content = {"reference": "ref", "cells": {"ref": {"config": "digits/supervised.yaml", "set": setting}}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
        cell = load_suite(str(tmp_path / "mine.yaml")).cells["ref"]
        with pytest.raises(InputError, match=rf"cell ref: .*class_path {name}\.Mine is outside the allowed modules"):
            worker.resolve({"ref": arguments(cell, 0, tmp_path, {})})
        changed = load_suite("digits", changes=setting).cells["supervised"]  # as --set does
        with pytest.raises(InputError, match=rf"class_path {name}\.Mine is outside the allowed modules"):
            build(arguments(changed, 0, tmp_path, {}))
    assert not mark.exists()


REFUSED = [
    *(("model", path) for path in ("os.system", "builtins.eval", "torch.hub.load", "torch.load", "torch.nn.Linear")),
    *(("model", path) for path in ("lightning.pytorch.Trainer", "jsonargparse.set_parsing_settings", "pickle.loads")),
    *(
        ("model", path) for path in ("benchmark.system.files.os.fsync", "methods.base.torch.load")
    ),  # through ours to others'
    ("trainer.callbacks", "benchmark.training.torchrun.Messages"),  # these write where they are told
    ("trainer.callbacks", "benchmark.training.saved_config.KeptConfig"),
    ("trainer.callbacks", "benchmark.training.checkpoints.ResumePoints"),
    *((key, "subprocess.Popen") for key in ("model.network", "optimizer", "lr_scheduler", "trainer.callbacks", "data")),
]


@pytest.mark.parametrize(("key", "path"), REFUSED)
def test_what_configurations_do_not_need_is_refused_under_every_key(capsys, path, key):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", f"--config={SUPERVISED}", f"--{key}={{class_path: {path}, init_args: {{}}}}"])
    told = capsys.readouterr().err
    assert (end.value.code, told.count("\n")) == (2, 1)
    assert "is outside the allowed modules" in told


@pytest.mark.slow
def test_a_module_of_a_user_is_allowed_by_name_and_only_as_what_the_key_declares(own, tmp_path):
    name, mark = own
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'modules'}:{ROOT}", class_paths.VARIABLE: f" {name} "}
    words = [f"--config={SUPERVISED}", f"--model.class_path={name}.Mine", "--print_config"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.cli", "fit", *words],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["model"]["class_path"] == f"{name}.Mine"
    assert mark.exists()


def test_another_class_of_an_allowed_module_is_refused(own, capsys, monkeypatch):
    name, _ = own
    monkeypatch.setenv(class_paths.VARIABLE, name)
    with pytest.raises(SystemExit):
        cli.main(["fit", f"--config={SUPERVISED}", f"--model={name}.Other"])
    assert "does not correspond to a subclass of Method" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["*", "../x", "a b", "jsonargparse", "x.", "a,,-"])
def test_what_names_no_module_is_refused(monkeypatch, value):
    monkeypatch.setenv(class_paths.VARIABLE, value)
    with pytest.raises(InputError, match="takes names of modules, separated by commas"):
        class_paths.allowed()


# Classes by their name alone


def resolved(*words):
    """Settings of a fit, in a process of its own: nothing is loaded yet that a name could stand for."""
    command = [sys.executable, "-m", "benchmark.cli", "fit", *words, "--print_config"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_class_of_ours_may_be_named_without_its_module(tmp_path):
    (tmp_path / "network.yaml").write_text(
        "class_path: WideResNet\ninit_args: {in_channels: 1, classes: 10, depth: 10, width: 1, noise: false}\n"
    )
    words = ("--model=Supervised", f"--model.network={tmp_path / 'network.yaml'}", "--data", "Digits")
    schedule = ("--optimizer=AdamW", '--lr_scheduler={"class_path": "WarmupCosine", "init_args": {"steps": 9}}')
    done = resolved(*words, *schedule)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert found["model"]["class_path"] == "methods.supervised.Supervised"
    assert found["model"]["init_args"]["network"]["class_path"] == "methods.networks.wrn.WideResNet"
    assert found["data"]["class_path"] == "datamodules.digits.Digits"
    assert found["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert found["lr_scheduler"]["class_path"] == "benchmark.training.schedules.WarmupCosine"


@pytest.mark.slow
def test_a_file_may_name_classes_without_their_modules(tmp_path, capsys):
    short = SUPERVISED.read_text()
    for module in (
        "methods.supervised.",
        "methods.networks.wrn.",
        "datamodules.digits.",
        "benchmark.training.schedules.",
    ):
        assert module in short
        short = short.replace(module, "")
    (tmp_path / "short.yaml").write_text(short)
    done = resolved(f"--config={tmp_path / 'short.yaml'}")
    assert done.returncode == 0, done.stderr
    with pytest.raises(SystemExit):
        cli.main(["fit", f"--config={SUPERVISED}", "--print_config"])
    assert done.stdout == capsys.readouterr().out


@pytest.mark.slow
def test_a_name_that_is_no_method_is_refused_with_the_nearest_one():
    done = resolved("--model=NoisyClassifier", "--data=Digits")
    assert done.returncode == 2
    assert done.stderr == (
        "error: command line: model: no class named NoisyClassifier; did you mean NoisyClassifierGuidance?\n"
    )


@pytest.mark.slow
def test_full_class_paths_load_no_module_but_their_own():
    script = (
        "import sys; from benchmark.training.build import build;"
        f"build(['--config={SUPERVISED}', '--trainer.logger=false', '--trainer.max_steps=1']);"
        "print('methods.joint_diffusion' in sys.modules, 'methods.supervised' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False True\n", done.stderr


# Configurations that ship


@pytest.mark.parametrize("name", ["digits/supervised.yaml", "configs/digits/supervised.yaml"])
def test_a_configuration_that_ships_is_found_from_any_folder_by_its_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in ((f"--config={name}",), ("--config", name), ("-c", name)):
        with pytest.raises(SystemExit) as end:
            cli.main(["fit", *words, "--print_config"])
        assert end.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"] == "methods.supervised.Supervised"


def test_a_file_of_the_users_comes_before_one_that_ships(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "digits" / "supervised.yaml"
    own.parent.mkdir()
    own.write_text(SUPERVISED.read_text().replace("label_smoothing: 0.05", "label_smoothing: 0.25"))
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config=digits/supervised.yaml", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["label_smoothing"] == 0.25
