"""A run is of its data: images of the same name in another folder, or changed ones, are other data."""

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmark import evaluate, run
from benchmark.errors import InputError
from benchmark.execute import worker
from benchmark.suite.contents import check_contents, contents
from benchmark.suite.jobs import arguments
from benchmark.suite.suite import CONFIGS, Cell
from benchmark.system.surroundings import absolute
from datamodules.image_folder import ImageFolder

SUITE = {
    "reference": "classifier",
    "protocol": {"samples": 8, "noisy_draws": 1, "levels": 2, "batch": 20, "denoise_times": [0.5]},
    "cells": {"classifier": {"config": "small.yaml"}, "images": {"images": "test"}},
}
CONFIG = {
    "model": {
        "class_path": "methods.supervised.Supervised",
        "init_args": {
            "network": {
                "class_path": "methods.networks.wrn.WideResNet",
                "init_args": {"in_channels": 1, "classes": 2, "depth": 10, "width": 1, "noise": False},
            }
        },
    },
    "data": {"class_path": "datamodules.image_folder.ImageFolder", "init_args": {"name": "dots", "batch_size": 8}},
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
    "trainer": {"max_steps": 2},
}


def draw(root, seed):
    """A folder of grey images of two classes, bright and dark."""
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        for label in (0, 1):
            folder = root / "dots" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(100 * label, 100 * label + 100, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "dots.yaml").write_text(yaml.safe_dump(SUITE))
    return tmp_path / "dots.yaml"


def values(out):
    records = json.loads((out / "results.json").read_text())["records"]
    return {(r["cell"], r["metric"]): r["value"] for r in records if "seconds" not in r["metric"]}


@pytest.mark.slow
def test_a_run_over_other_images_of_the_same_name_trains_again_and_over_equal_ones_does_not(
    suite, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("DIFFCLASS_DATA", "")  # set by each run below
    out = tmp_path / "out"
    first, second = draw(tmp_path / "first", 1), draw(tmp_path / "second", 2)
    shutil.copytree(first, tmp_path / "third")

    def done(root, *more):
        """Whether a run trained."""
        final = out / "classifier" / "seed0" / "checkpoints" / "final.ckpt"
        before = final.stat().st_mtime_ns if final.exists() else None
        words = ["--suite", str(suite), "--out", str(out), "--workers", "1", "--data-root", str(root), *more]
        assert run.main(words) == 0, capfd.readouterr()
        return final.stat().st_mtime_ns != before

    assert done(first)
    found = values(out)
    assert not done(first)
    assert not done(tmp_path / "third")
    assert values(out) == found
    assert done(second)
    assert values(out) != found
    # In a worker, what is read is held against what was planned.
    plan = json.loads((out / "plan.json").read_text())
    for config in plan["resolved"].values():
        config["content"]["data"]["train"] = "of yet others"
    (out / "plan.json").write_text(json.dumps(plan))
    words = ["--suite", str(suite), "--out", str(out), "--workers", "1", "--data-root", str(second)]
    assert run.main(words) == 4
    assert "the train part of dots is not the one that this run was planned for" in capfd.readouterr().err
    assert done(second, "--fresh")


@pytest.mark.slow
def test_samples_are_measured_in_a_new_folder_by_what_a_run_there_takes_over(suite, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DIFFCLASS_DATA", str(draw(tmp_path / "data", 1)))
    out, given = tmp_path / "out", tmp_path / "given"
    shutil.copytree(tmp_path / "data" / "dots" / "test" / "0", given)
    assert evaluate.main([str(given), "--data", str(suite), "--out", str(out), "--workers", "1"]) == 0
    before = (out / "classifier/seed0/checkpoints/final.ckpt").stat().st_mtime_ns
    assert run.main(["--suite", str(suite), "--out", str(out), "--workers", "1"]) == 0
    assert (out / "classifier/seed0/checkpoints/final.ckpt").stat().st_mtime_ns == before


def test_a_trial_which_leaves_no_weights_is_refused_in_a_suite(tmp_path, monkeypatch):
    monkeypatch.setitem(worker._context, "threads", 1)
    cell = Cell("c", str(CONFIGS / "digits" / "supervised.yaml"), set={"trainer.fast_dev_run": True})
    with pytest.raises(InputError, match=r"cell c: trainer\.fast_dev_run leaves no weights to measure"):
        worker.resolve({"c": arguments(cell, 0, tmp_path, {})})


def test_contents_tell_data_and_files_apart_and_are_checked(tmp_path):
    first, second = (ImageFolder("dots", str(draw(tmp_path / name, n))) for n, name in enumerate(("a", "b")))
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    config = {
        "model": {"class_path": "methods.score_model.ScoreModel", "init_args": {"checkpoint": str(weights)}},
        "data": {"root": "a"},
    }
    noted = contents(config, first, {})
    assert noted["files"].keys() == {str(weights)}
    assert noted["sources"].keys() == {str(weights), str(tmp_path / "a" / "dots")}
    assert noted["root"] == str(absolute(os.environ.get("DIFFCLASS_DATA") or "data"))
    planned = {**config, "content": noted}
    check_contents(planned, first)
    with pytest.raises(InputError, match="the train part of dots is not the one that this run was planned for"):
        check_contents(planned, second)
    weights.write_bytes(b"2")
    with pytest.raises(InputError, match=r"weights\.pth was changed since this run was planned"):
        check_contents(planned, first)


def test_own_source_that_is_changed_while_a_run_goes_on_is_not_taken_for_what_was_planned(tmp_path, monkeypatch):
    """A worker imports it when a job needs it."""
    monkeypatch.syspath_prepend(tmp_path)
    mine = tmp_path / "edited_meanwhile.py"
    mine.write_text("SCALE = 1\n")
    data = ImageFolder("dots", str(draw(tmp_path / "data", 1)))
    config = {"model": {"class_path": "edited_meanwhile.Mine"}, "data": {}}
    planned = {**config, "content": contents(config, data, {})}
    mine.write_text("# Only a comment.\nSCALE = 1\n")
    check_contents(planned, data)
    for text in ("SCALE = 2\n", "SCALE = \n"):
        mine.write_text(text)
        with pytest.raises(InputError, match=r"the code in .*meanwhile\.py was changed since this run was"):
            check_contents(planned, data)
