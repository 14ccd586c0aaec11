"""Which classes a configuration may name: others are refused before their module runs, a user's own by permission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark import class_paths, cli
from benchmark.errors import InputError
from benchmark.execute import worker
from benchmark.plan import arguments
from benchmark.suite import load_suite

ROOT = Path(__file__).parents[2]
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
            cli.build(arguments(changed, 0, tmp_path, {}))
    assert not mark.exists()


REFUSED = [
    *(("model", path) for path in ("os.system", "builtins.eval", "torch.hub.load", "torch.load", "torch.nn.Linear")),
    *(("model", path) for path in ("lightning.pytorch.Trainer", "jsonargparse.set_parsing_settings", "pickle.loads")),
    *(("model", path) for path in ("benchmark.files.os.fsync", "methods.base.torch.load")),  # through ours to others'
    *((key, "subprocess.Popen") for key in ("model.network", "optimizer", "lr_scheduler", "trainer.callbacks", "data")),
]


@pytest.mark.parametrize(("key", "path"), REFUSED)
def test_what_configurations_do_not_need_is_refused_under_every_key(capsys, path, key):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", f"--config={SUPERVISED}", f"--{key}={{class_path: {path}, init_args: {{}}}}"])
    told = capsys.readouterr().err
    assert (end.value.code, told.count("\n")) == (2, 1)
    assert "is outside the allowed modules" in told


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
