"""Published weights on the command line and in a suite: loaded, used without training, trained further, or refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from networks.published_nets import Guided, Weights, ncsnpp

from benchmark import run
from benchmark.suite.contents import contents
from benchmark.suite.settings import training_settings
from benchmark.training import build
from benchmark.training.checkpoints import FINAL
from datamodules.digits import Digits
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.ncsnpp import NCSNpp
from methods.networks.published.load import load_published
from methods.networks.steps import GuidedStepEmbedding
from runs import command

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.logger=false")
DENOISER = {
    "class_path": "methods.diffusion.denoiser.EpsDenoiser",
    "init_args": {
        "network": {
            "class_path": "methods.networks.ncsnpp.NCSNpp",
            "init_args": {"in_channels": 1, "width": 8, "multipliers": [1, 2], "blocks": 1},
        },
        "process": {
            "class_path": "methods.diffusion.process.VarianceExploding",
            "init_args": {"sigma_min": 0.01, "sigma_max": 20.0},
        },
    },
}
CLASSIFIER = {"in_channels": 1, "classes": 10, "image_size": 8, "multipliers": [1], "blocks": 1, "attention": []}
STEPS = {"class_path": "methods.networks.steps.GuidedStepEmbedding"}
SAMPLER = {"class_path": "methods.diffusion.samplers.Heun", "init_args": {"steps": 3}}
DATA = {"class_path": "datamodules.digits.Digits", "init_args": {"batch_size": 32}}
OPTIMIZER = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A published score network and a published classifier, and configurations that start from them."""
    folder = tmp_path_factory.mktemp("published")
    weights = Weights()
    torch.manual_seed(0)
    ncsnpp(weights, torch.rand(1, 1, 8, 8), torch.ones(1), 8, (1, 2), 1, (4,))
    averages = [value for name, value in weights.items() if name != "all_modules.0.W"]
    torch.save({"model": dict(weights), "ema": {"shadow_params": averages}, "step": 7}, folder / "score.pth")
    net = Guided(Weights(), 1, (), None, True)
    net.tell(torch.ones(1))
    net.pool(net.encode(torch.rand(1, 1, 8, 8), (1,))[0], classes=10)
    torch.save(dict(net.w), folder / "classifier.pt")

    score = {"denoiser": DENOISER, "times": {"class_path": "methods.diffusion.process.UniformTimes"}}
    assisted = {
        "denoiser": {
            "class_path": "methods.diffusion.denoiser.Pretrained",
            "init_args": {"denoiser": DENOISER, "checkpoint": "none.ckpt"},
        },
        "network": {
            "class_path": "methods.networks.encoder_classifier.EncoderClassifier",
            "init_args": {**CLASSIFIER, "inputs": 2, "noise": STEPS},
        },
    }
    for name, kind, parts, file in (
        ("score", "score_model.ScoreModel", score, "score.pth"),
        ("assisted", "denoising_assisted.DenoisingAssisted", assisted, "classifier.pt"),
    ):
        parts = {**parts, "sampler": SAMPLER, "checkpoint": str(folder / file)}
        model = {"class_path": f"methods.{kind}", "init_args": parts}
        config = {"model": model, "data": DATA, "trainer": {"max_steps": 0}}
        config |= {"needs": {"training": {"denoiser": "score"}}} if name == "assisted" else {}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def score(files):
    """The published score network by itself."""
    net = NCSNpp(1, width=8, multipliers=(1, 2), blocks=1)
    load_published(net, str(files / "score.pth"))
    return {f"denoiser.network.{name}": value for name, value in net.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def weights_of(folder):
    return torch.load(folder / "checkpoints" / FINAL, weights_only=True)["state_dict"]


def test_zero_steps_save_the_published_weights(files, score, tmp_path):
    assert command("fit", "--config", files / "score.yaml", f"--trainer.default_root_dir={tmp_path}", *QUIET) == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [FINAL]
    assert_equal(weights_of(tmp_path), score)


def test_training_starts_from_the_published_weights(files, score, tmp_path):
    """At a learning rate of 0 it ends there, through weight averaging too."""
    words = [f"--config={files / 'score.yaml'}", f"--trainer.default_root_dir={tmp_path}", *QUIET]
    assert command("fit", *words, "--trainer.max_steps=2", f"--optimizer={json.dumps(OPTIMIZER)}") == 0
    assert_equal(weights_of(tmp_path), score)


def test_evaluation_reads_published_weights_unless_a_checkpoint_of_ours_is_given(files, score, tmp_path):
    words = [f"--config={files / 'score.yaml'}", f"--trainer.default_root_dir={tmp_path}", *QUIET]
    evaluated = build.run(["validate", *words], stop=lambda: False).model
    assert_equal(evaluated.state_dict(), score)
    other = {name: value + 1 for name, value in score.items()}
    torch.save({"state_dict": other, "pytorch-lightning_version": "2.6.6"}, tmp_path / "other.ckpt")
    words += ["--model.init_args.checkpoint=missing.pth", f"--ckpt_path={tmp_path / 'other.ckpt'}"]
    evaluated = build.run(["validate", *words], stop=lambda: False).model
    assert_equal(evaluated.state_dict(), other)


def test_files_that_cannot_be_used_are_refused_in_one_line(files, tmp_path, refusal):
    words = ("fit", "--config", files / "score.yaml", f"--trainer.default_root_dir={tmp_path}")
    key = "--model.init_args.checkpoint"
    message = refusal(*words, *QUIET, f"{key}={tmp_path / 'no.pth'}")
    assert message.startswith(f"no checkpoint at {tmp_path / 'no.pth'}; name a file by the key 'checkpoint', or one")
    (tmp_path / "cut.pth").write_bytes((files / "score.pth").read_bytes()[:5000])
    message = refusal(*words, *QUIET, f"{key}={tmp_path / 'cut.pth'}")
    assert message.startswith(f"{tmp_path / 'cut.pth'} cannot be read as weights alone: it is damaged")
    message = refusal(*words, *QUIET, f"{key}={files / 'classifier.pt'}")
    assert message.startswith(f"{files / 'classifier.pt'}: holds the weights of a guided-diffusion classifier")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_zero_steps_without_published_weights_are_refused(files, tmp_path, refusal):
    words = ("fit", "--config", files / "score.yaml", "--model.init_args.checkpoint=null")
    message = refusal(*words, *QUIET)
    assert message.startswith("trainer.max_steps must be at least 1, or -1 for no limit, got 0; 0 is for published")


def test_a_network_that_does_not_predict_noise_takes_no_published_weights(refusal):
    words = ("fit", "--config", CONFIGS / "score_model.yaml", "--model.init_args.checkpoint=a.pth")
    assert refusal(*words, *QUIET) == (
        "published networks predict the noise: a checkpoint needs EpsDenoiser, got EDMDenoiser"
    )


def test_an_anchor_and_published_weights_are_refused(refusal):
    words = ("fit", "--config", CONFIGS / "cdm_anchored.yaml", "--model.init_args.checkpoint=a.pth")
    assert "give one of anchor and checkpoint" in refusal(*words, *QUIET)


def test_a_training_is_known_by_what_its_published_file_holds(tmp_path):
    data = Digits()

    def key(path):
        model = {"class_path": "methods.score_model.ScoreModel", "init_args": {"checkpoint": str(path)}}
        config = {"model": model, "data": {}}
        return training_settings({**config, "content": contents(config, data, {})})

    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    first.write_bytes(b"1")
    shutil.copy(first, second)
    assert key(first) == key(second)
    second.write_bytes(b"2")
    assert key(first) != key(second)
    assert key("a name") != key("another name")


SUITE = {
    "reference": "reference_classifier",
    "protocol": {"samples": 24, "noisy_draws": 1, "levels": 2, "batch": 100, "denoise_times": [0.5]},
    "cells": {
        "reference_classifier": {"config": "digits/supervised.yaml", "seed": 1000, "set": {"trainer.max_steps": 30}},
        "score": {"config": "score.yaml"},
        "assisted": {"config": "assisted.yaml", "guidance_scales": [1]},
    },
}  # fmt: skip


@pytest.mark.slow
def test_a_suite_measures_published_weights_as_they_are(files, score, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    suite, out = files / "mini.yaml", tmp_path / "run"
    suite.write_text(yaml.safe_dump(SUITE))
    assert run.main(["--suite", str(suite), "--out", str(out), "--workers", "1"]) == 0
    assert_equal(weights_of(out / "score" / "seed0"), score)
    network = EncoderClassifier(**CLASSIFIER, inputs=2, noise=GuidedStepEmbedding)
    load_published(network, str(files / "classifier.pt"))
    saved = weights_of(out / "assisted" / "seed0")
    one_input = {f"classifier.network.{n}": v for n, v in network.state_dict().items() if ".convs.1." not in n}
    assert_equal({name: saved[name] for name in one_input}, one_input)
    assert saved["classifier.network.encoder.stem.convs.1.weight"].std() < 2e-4

    records = json.loads((out / "results.json").read_text())["records"]
    found = {(record["cell"], record["metric"]): record for record in records}
    for row in (("score", "fd"), ("assisted", "accuracy/noisy"), ("assisted", "fd")):
        assert found[row]["status"] == "ok"
        assert "n_labeled" not in found[row]["protocol"]
    cost = found["assisted", "throughput/train"]
    assert (cost["status"], cost["reason"]) == ("n/a", "published weights, not trained")
    assert found["reference_classifier", "throughput/train"]["status"] == "ok"
