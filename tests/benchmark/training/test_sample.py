"""`lightning sample` and `load`: a trained method outside a suite."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmark import cli
from benchmark.answers.given_samples import given_samples
from benchmark.answers.samples import Shards, sample
from benchmark.errors import InputError
from benchmark.load import load
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import load_arrays
from benchmark.training.checkpoints import FINAL
from benchmark.training.sample import picture

CONFIGS = Path(__file__).parents[3] / "configs" / "digits"
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.logger=false")


def fit(name, folder):
    """Folder of a training of Gaussians, which takes an epoch of no optimiser."""
    cli.main(["fit", f"--config={CONFIGS / name}", f"--trainer.default_root_dir={folder}", *QUIET])
    return folder


@pytest.fixture(scope="module")
def by_class(tmp_path_factory):
    return fit("class_gaussians.yaml", tmp_path_factory.mktemp("by_class"))


@pytest.fixture(scope="module")
def without_classes(tmp_path_factory):
    return fit("gaussian.yaml", tmp_path_factory.mktemp("without"))


def draw(folder, out, *words):
    """Arrays that the command writes."""
    cli.main(["sample", f"--config={folder / 'config.yaml'}", f"--out={out}", *words])
    return load_arrays(out)


@pytest.fixture
def refusal(by_class, capsys, tmp_path):
    """The one line that refuses a command, which then leaves no file."""

    def refusal(*words, folder=by_class):
        with pytest.raises(SystemExit) as end:
            draw(folder, tmp_path / "x.npz", *words)
        assert end.value.code == 2
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().err.splitlines()[-1]

    return refusal


def test_the_samples_are_those_of_a_suite_with_every_class_in_turn(by_class, tmp_path):
    drawn = draw(by_class, tmp_path / "x.npz", "--count=25", "--seed=3", "--batch=10")
    method, data = load(by_class)
    of_suite = Shards(Protocol(samples=25, seed=3, batch=10), 1.0, tmp_path, "key")
    sample(method, data, of_suite, lambda *progress: None)
    expected = load_arrays(tmp_path / "samples@1.npz")
    assert np.array_equal(drawn["images"], expected["images"])
    assert np.array_equal(drawn["labels"], np.arange(25) % 10)
    assert (drawn["images"].dtype, drawn["images"].shape) == (np.uint8, (25, 8, 8, 1))
    assert drawn["labels"].dtype == np.int64


def test_a_sample_depends_on_the_seed_and_its_number_alone(by_class, tmp_path):
    many = draw(by_class, tmp_path / "many.npz", "--count=25", "--batch=25")["images"].astype(int)
    few = draw(by_class, tmp_path / "few.npz", "--count=12", "--batch=5")["images"].astype(int)
    other = draw(by_class, tmp_path / "other.npz", "--count=12", "--seed=1")["images"].astype(int)
    assert np.abs(many[:12] - few).max() <= 1
    assert (many[:12] != few).mean() < 1e-2
    assert (many[:12] != other).mean() > 0.2


def test_samples_of_a_class_are_of_that_class(by_class, tmp_path):
    drawn = draw(by_class, tmp_path / "x.npz", "--label=7", "--count=50")
    assert set(drawn["labels"]) == {7}
    method, data = load(by_class)
    x = data.grey.centre(torch.from_numpy(drawn["images"]).permute(0, 3, 1, 2))
    assert (method.classify(x).argmax(1) == 7).float().mean() > 0.9


@pytest.mark.parametrize("words", [(), ("--guidance_scale=0",)], ids=["its own scale", "scale 0"])
def test_without_classes_the_labels_are_missing_ones(by_class, without_classes, tmp_path, words):
    drawn = draw(by_class if words else without_classes, tmp_path / "x.npz", "--count=11", *words)
    assert set(drawn["labels"]) == {-1}


def test_the_command_that_judges_samples_takes_the_file(by_class, tmp_path):
    drawn = draw(by_class, tmp_path / "x.npz", "--count=20")
    given = given_samples(tmp_path / "x.npz", load(by_class)[1])
    assert np.array_equal(given.images, drawn["images"])
    assert np.array_equal(given.labels, drawn["labels"])


def test_the_picture_shows_ten_images_a_row(by_class, tmp_path):
    drawn = draw(by_class, tmp_path / "x.npz", "--count=25")["images"]
    shown = np.asarray(Image.open(tmp_path / "x.png"))
    assert shown.shape == (3 * 32, 10 * 32)
    second_row = shown[32:64, 32:64][::4, ::4]
    assert np.array_equal(second_row, (drawn[11, ..., 0] * (255 / 16)).round())
    assert not shown[64:, 5 * 32 :].any()


def test_colours_stay_colours():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(picture(images, 256)), np.concatenate(list(images), axis=1))


def test_a_trial_draws_and_writes_nothing(by_class, tmp_path, capsys):
    words = ["sample", f"--config={by_class / 'config.yaml'}", f"--out={tmp_path / 'x.npz'}"]
    cli.main([*words, "--trainer.fast_dev_run=1"])
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_what_cannot_be_drawn_is_refused(refusal, without_classes, tmp_path):
    assert "--label must be 0 to 9, a class of digits, got 10" in refusal("--label=10")
    assert "can be asked for no class, guidance_scale is 0" in refusal("--label=1", "--guidance_scale=0")
    assert "can be asked for no class, it knows no classes" in refusal("--label=1", folder=without_classes)
    assert "more than this machine has" in refusal("--count=10000000000000")
    assert "--out must be a file that ends in .npz" in refusal(f"--out={tmp_path / 'x.png'}")
    assert "in a folder that there is" in refusal(f"--out={tmp_path / 'none' / 'x.npz'}")
    assert "count: expected PositiveInt" in refusal("--count=0")


def test_a_method_without_a_sampler_draws_nothing(tmp_path, capsys):
    words = ["sample", f"--config={CONFIGS / 'supervised.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert capsys.readouterr().err == "error: Supervised draws no images: does not generate\n"


# In Python


def test_a_loaded_method_has_the_weights_of_its_folder_and_is_ready_to_be_asked(by_class):
    method, data = load(str(by_class))
    weights = torch.load(by_class / "checkpoints" / FINAL, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
    assert not method.training
    u, y = data.images("test")
    assert (method.classify(data.grey.centre(u)).argmax(1) == y).float().mean() > 0.95


def test_the_librarys_way_to_load_points_to_ours(by_class):
    with pytest.raises(NotImplementedError, match=r"weights alone; benchmark\.load\.load\(FOLDER\) builds"):
        type(load(by_class)[0]).load_from_checkpoint(by_class / "checkpoints" / FINAL)


def test_loading_leaves_the_callers_random_numbers_alone(by_class):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    load(by_class)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_a_folder_without_a_finished_training_is_named(by_class, tmp_path):
    with pytest.raises(InputError, match=rf"^no {tmp_path / 'config.yaml'}; name the folder of a training"):
        load(tmp_path)
    shutil.copy(by_class / "config.yaml", tmp_path)
    with pytest.raises(InputError, match=rf"^no {tmp_path / 'checkpoints' / FINAL}; name the folder of a training"):
        load(tmp_path)


def test_a_folder_that_was_moved_or_trained_on_another_machine_loads(by_class, tmp_path):
    moved = shutil.copytree(by_class, tmp_path / "moved")
    config = yaml.safe_load((moved / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "devices": 8}
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    method, _ = load(moved)
    assert method.device == torch.device("cpu")
