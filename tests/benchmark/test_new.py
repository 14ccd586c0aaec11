"""Files to start from are small, name what is there, run as they are, and overwrite nothing."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmark import new, run
from benchmark.suite.suite import load_suite
from runs import command


def images(folder, sides=(8,), parts=("",)):
    """A folder of grey images of two classes, some with each side."""
    rng = np.random.default_rng(0)
    for part in parts:
        for name in ("oak", "rose"):
            (folder / part / name).mkdir(parents=True)
            for number in range(30):
                side = sides[number % len(sides)]
                pixels = rng.integers(0, 255, (side, side), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def settings(tmp_path):
    return yaml.safe_load((tmp_path / "out" / "flowers.yaml").read_text())["cells"]["supervised"]["set"]


@pytest.mark.parametrize(
    ("sides", "parts", "more"),
    [
        ((8,), ("",), {"test_fraction": 0.2}),
        ((8,), ("train", "test"), {}),
        ((8, 12), ("",), {"test_fraction": 0.2, "resize": 32}),
        ((100,), ("train", "test"), {"resize": 32}),
    ],
)
def test_a_suite_over_a_folder_is_short_and_says_what_its_images_need(tmp_path, capsys, sides, parts, more):
    folder = images(tmp_path / "flowers", sides, parts)
    assert new.main(["data", "flowers", f"--folder={folder}", f"--out={tmp_path / 'out'}"]) == 0
    suite = tmp_path / "out" / "flowers.yaml"
    assert len(suite.read_text().splitlines()) <= 15
    assert len(load_suite(str(suite)).cells) == 5
    expected = {"name": "flowers", "root": str(tmp_path), **more}
    found = {key.removeprefix("data.init_args."): value for key, value in settings(tmp_path).items()}
    assert found == {"data.class_path": "datamodules.image_folder.ImageFolder", **expected}
    assert f"{60 * len(parts)} images in 2 classes: oak, rose" in capsys.readouterr().out


def test_a_suite_and_a_method_name_what_is_there(tmp_path):
    assert new.main(["suite", "some", f"--out={tmp_path}"]) == 0
    assert new.main(["method", "my_method", f"--out={tmp_path}"]) == 0
    assert "denoising_assisted" in load_suite(str(tmp_path / "some.yaml")).cells
    assert "my_method" in load_suite(str(tmp_path / "my_method_suite.yaml")).cells
    assert "class MyMethod(Method)" in (tmp_path / "my_method.py").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "x"], "data needs --folder DIR"),
        (["suite", "x", "--folder=."], "--folder is for data alone"),
        (["suite", "a/b"], "NAME must be up to 64 letters"),
        (["method", "torch.nn"], "method: NAME becomes a Python module"),
        (["method", "json"], "method: NAME becomes a Python module"),
        (["method", "torch"], "method: torch is an installed package"),
        (["method", "methods"], "method: methods is an installed package"),
        (["data", "x", "--folder=alone"], "it has a folder train but no test"),
        (["data", "x", "--folder=single"], "has images of one class"),
        (["data", "x", "--folder=none"], "--folder: no folder"),
        (["data", "x", "--folder=empty"], "--folder: "),
        (["suite", "taken"], "choose another NAME or --out"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    images(tmp_path / "alone", parts=("train",))
    shutil.rmtree(images(tmp_path / "single") / "oak")
    (tmp_path / "taken.yaml").write_text("mine\n")
    assert new.main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "empty", "single", "taken.yaml"]
    assert (tmp_path / "taken.yaml").read_text() == "mine\n"


@pytest.mark.slow
def test_a_suite_over_a_folder_runs_and_shows_the_names_of_its_classes(tmp_path, monkeypatch):
    images(tmp_path / "flowers")
    monkeypatch.chdir(tmp_path)
    assert new.main(["data", "flowers", "--folder=flowers"]) == 0
    words = ["--suite=flowers.yaml", "--set", "trainer.max_steps=2", "--name=short", "--workers=1"]
    assert run.main(words) == 0
    assert "rose" in (tmp_path / "runs" / "short" / "per_class.md").read_text()


@pytest.mark.slow
def test_a_method_of_the_template_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new.main(["method", "mine_template"]) == 0
    monkeypatch.setenv("DIFFCLASS_ALLOW", "mine_template")
    monkeypatch.syspath_prepend(tmp_path)
    assert command("fit", "--config=mine_template.yaml", "--trainer.max_steps=2") == 0
    assert (tmp_path / "runs" / "lightning" / "checkpoints" / "final.ckpt").is_file()
