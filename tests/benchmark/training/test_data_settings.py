"""Settings of networks that are taken from the data set."""

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmark.errors import InputError
from benchmark.training.build import build
from benchmark.training.checks import check_shapes
from benchmark.training.saved_config import FILE

ENCODER = {
    "class_path": "methods.networks.encoder_classifier.EncoderClassifier",
    "init_args": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "pool": "flatten"},
}
PROCESS = {"class_path": "methods.diffusion.process.VarianceExploding"}
TIMES = {"class_path": "methods.diffusion.process.UniformTimes"}
UNET = {
    "class_path": "methods.networks.unet.UNet",
    "init_args": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
}


@pytest.fixture
def folder(tmp_path):
    """A data set of three classes of 8x8 pixels in RGB, and a configuration over it without a method."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog", "owl"):
            place = tmp_path / "pets" / part / name
            place.mkdir(parents=True)
            for k in range(12):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{k}.png")
    data = {"class_path": "datamodules.image_folder.ImageFolder", "init_args": {"name": "pets", "root": str(tmp_path)}}
    return tmp_path, {"data": data, "trainer": {"max_steps": 1, "logger": False}}


def built(folder, model, **init_args):
    root, config = folder
    model = {**model, "init_args": {**model["init_args"], **init_args}}
    (root / "own.yaml").write_text(yaml.safe_dump({**config, "model": model}))
    return build([f"--config={root / 'own.yaml'}"])


WRN = {
    "class_path": "methods.networks.wrn.WideResNet", "init_args": {"depth": 10, "width": 1, "noise": False}
}  # fmt: skip
SUPERVISED = {"class_path": "methods.supervised.Supervised", "init_args": {"network": WRN}}


def test_an_own_data_set_needs_no_number_of_classes_channels_or_pixels(folder):
    cli = built(folder, SUPERVISED)
    check_shapes(cli.model, cli.datamodule)
    filled = cli.config.model.init_args.network.init_args
    assert (filled.classes, filled.in_channels) == (3, 3)
    kept = yaml.safe_load(cli.settings)
    assert kept["model"]["init_args"]["network"]["init_args"]["classes"] == 3
    assert kept["data"]["class_path"] == "datamodules.image_folder.ImageFolder"
    encoder = built(folder, SUPERVISED, network=ENCODER).config.model.init_args.network.init_args
    assert (encoder.classes, encoder.in_channels, encoder.image_size) == (3, 3, 8)
    (folder[0] / FILE).write_text(cli.settings)
    assert build([f"--config={folder[0] / FILE}"]).settings == cli.settings


def test_what_is_given_wins_and_is_refused_where_it_does_not_match(folder):
    network = {**WRN, "init_args": {**WRN["init_args"], "classes": 4}}
    cli = built(folder, SUPERVISED, network=network)
    assert cli.config.model.init_args.network.init_args.classes == 4
    with pytest.raises(InputError, match="Supervised tells 4 classes apart, the task of pets has 3"):
        check_shapes(cli.model, cli.datamodule)


@pytest.mark.parametrize(("given", "classes"), [({}, None), ({"classes": "data"}, 3), ({"classes": 5}, 5)])
def test_a_setting_with_a_default_keeps_it_unless_it_is_left_to_the_data(folder, given, classes):
    unet = {**UNET, "init_args": {**UNET["init_args"], **given}}
    denoiser = {
        "class_path": "methods.diffusion.denoiser.EpsDenoiser", "init_args": {"network": unet, "process": PROCESS}
    }  # fmt: skip
    model = {"class_path": "methods.score_model.ScoreModel", "init_args": {"denoiser": denoiser, "times": TIMES}}
    cli = built(folder, model)
    assert cli.config.model.init_args.denoiser.init_args.network.init_args.classes == classes
    assert cli.model.denoiser.network.classes == classes


def test_classes_are_those_of_the_task():
    words = ["--config=configs/digits/supervised.yaml", "--trainer.logger=false"]
    task = '{"class_path": "datamodules.splits.PositiveUnlabeled", "init_args": {"positive": [1, 3], "count": 20}}'
    cli = build([*words, "--model.init_args.network.init_args.classes=data", f"--data.init_args.labels={task}"])
    assert cli.config.model.init_args.network.init_args.classes == 2


def test_other_words_are_refused_in_one_line(folder):
    network = {**WRN, "init_args": {**WRN["init_args"], "classes": "all"}}
    with pytest.raises(InputError, match=r"own.yaml: model.init_args.network.init_args.classes: expected .*'data'"):
        built(folder, SUPERVISED, network=network)


@pytest.mark.parametrize("name", ["gaussian", "class_gaussians", "cdm_anchored", "cdm_conditional", "egc", "joint"])
def test_a_shipped_configuration_fits_images_of_another_shape(folder, name):
    _, config = folder
    data = [f"--data={yaml.safe_dump(config['data'], default_flow_style=True)}"]
    cli = build([f"--config=digits/{name}.yaml", *data, "--trainer.logger=false"])
    check_shapes(cli.model, cli.datamodule)
    assert cli.datamodule.shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["class_gaussians", "cdm_anchored", "joint"])
def test_a_side_that_the_data_take_from_settings_can_be_written_to_a_configuration(folder, name):
    _, config = folder
    data = [f"--data={yaml.safe_dump(config['data'], default_flow_style=True)}", "--data.init_args.average_to=4"]
    cli = build([f"--config=digits/{name}.yaml", *data, "--trainer.logger=false"])
    assert cli.datamodule.shape == (3, 4, 4)
    (folder[0] / FILE).write_text(cli.settings)
    assert build([f"--config={folder[0] / FILE}"]).settings == cli.settings


def test_exact_points_are_as_many_as_the_data_trains_on(folder):
    points = "methods.baselines.empirical.EmpiricalDenoiser"
    denoiser = {"class_path": points, "init_args": {"process": PROCESS}}
    model = {"class_path": "methods.baselines.empirical.EmpiricalDistribution", "init_args": {"denoiser": denoiser}}
    cli = built(folder, model)
    assert cli.model.points.points.shape == (len(cli.datamodule.images("train")[1]), 3 * 8 * 8)
