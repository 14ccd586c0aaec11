"""Denoising over all noise levels, and features of noisy images: Gaussians have known errors and readable features."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import ExactDenoiser, GaussianMixture

from benchmark.answers.curves import TIMES, TRUE, curves
from benchmark.answers.probe import probe
from benchmark.records.levels import curves_records, probe_records
from benchmark.suite.cells import Cell
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.system.arrays import load_arrays
from datamodules.grey_levels import GreyLevels
from methods.base import Method
from methods.baselines.frozen_features import FrozenClassifier
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.levels import LevelClassifier, LevelDenoiser, SinglePass
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.networks.unet import UNet

SHAPE = (1, 4, 4)
GREY = GreyLevels(2**16)
VE = VarianceExploding(sigma_min=0.01, sigma_max=5.0)
PROTOCOL = Protocol(batch=64)


class Parts(Method):
    """A method of these parts, whose denoiser counts as its own."""

    def __init__(self, denoiser=None, **parts):
        if denoiser is not None:
            denoiser.register_buffer("weights", torch.zeros(1))
        super().__init__(denoiser, **parts)

    def losses(self, batch):
        return {}


def data_of(x, y, **more):
    u = GREY.quantise(x)
    parts = {"images": lambda part: (u, y), "some_images": lambda *_: (u, y)}
    return SimpleNamespace(grey=GREY, shape=SHAPE, **parts, **more)


def asked(question, records, method, data, folder):
    config = {"model": {"class_path": "methods.score_model.ScoreModel"}}
    job = Job(Cell("cell", config="a.yaml"), 0, "evaluate", folder, (), folder, config=config)
    Stage(question.__name__, "key").complete(folder, lambda: question(method, data, PROTOCOL, folder, lambda *_: None))
    return {record.metric: record for record in records(job, PROTOCOL)}


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    mixture = GaussianMixture.gaussian(SHAPE, std=0.2)
    return mixture, *mixture.sample(300)


def test_the_error_at_each_level_is_that_of_a_gaussian(tmp_path, gaussian):
    """``E (eps_hat - eps)^2 = s^2 / (s^2 + sigma^2)`` for images N(0, s^2)."""
    mixture, x, y = gaussian
    found = asked(curves, curves_records, Parts(ExactDenoiser(mixture, VE)), data_of(x, y), tmp_path)
    for t in TIMES:
        record = found[f"mse/levels/t={t:.3f}"]
        assert record.value == pytest.approx(0.04 / (0.04 + record.protocol["sigma"] ** 2), rel=0.1)
    arrays = load_arrays(tmp_path / "curves.npz")
    assert found["mse/levels"].value == pytest.approx(arrays["errors"].mean(), rel=1e-6)
    assert arrays["denoised"].shape == (7, 10, 4, 4, 1)
    assert np.abs(arrays["denoised"][-1]).max() < 0.05  # of pure noise, the mean
    np.testing.assert_allclose(arrays["mean"], GREY.quantise(x).float().mean(0).permute(1, 2, 0), rtol=1e-6)
    assert "log_levels" not in arrays


def test_a_classifier_of_levels_is_asked_where_images_of_known_levels_lie(tmp_path, gaussian):
    mixture, x, y = gaussian
    process = DiscreteVP(30, pure_noise=True)
    denoiser = LevelDenoiser(LevelClassifier(lambda x, y: mixture.level_log_prob(x, process).to(x.dtype), process))
    asked(curves, curves_records, Parts(denoiser, likelihood=SinglePass), data_of(x, y), tmp_path)
    curve = load_arrays(tmp_path / "curves.npz")["log_levels"]
    assert curve.shape == (len(TRUE), process.last + 1)
    assert (curve <= 0).all()
    np.testing.assert_allclose(curve.argmax(1) / process.last, TRUE, atol=0.2)


class Pixels(torch.nn.Module):
    """A classifier whose features are the pixels."""

    process = VE

    def features(self, x_t, t):
        return x_t.flatten(1)


def two_attributes(n):
    """Images of which one attribute is told by large steps of all pixels and one by a faint step of a single one."""
    bits = torch.randint(2, (n, 2), generator=torch.Generator().manual_seed(0))
    x = (bits[:, 0] - 0.5).view(-1, 1, 1, 1).expand(n, *SHAPE).clone()
    x[:, 0, 0, 0] += 0.2 * (bits[:, 1] - 0.5)
    return x, bits


def test_coarse_attributes_are_read_later_in_the_noise_than_fine_ones(tmp_path):
    x, bits = two_attributes(600)
    data = data_of(x, bits[:, 0], attribute_names=["coarse", "fine"], attributes=lambda part: bits)
    found = asked(probe, probe_records, Parts(classifier=Pixels()), data, tmp_path)
    arrays = load_arrays(tmp_path / "probe.npz")
    assert list(arrays["names"]) == ["coarse", "fine"]
    coarse, fine = arrays["right"].mean(1).T
    np.testing.assert_array_equal(arrays["right"][0], True)
    assert coarse[5] > 0.95
    assert fine[5] < 0.75
    assert coarse[9] < 0.9
    assert found["probe/t=0.5"].value == pytest.approx((coarse[5] + fine[5]) / 2)
    assert found["probe/t=0.5"].protocol == {"sigma": pytest.approx(0.2236, rel=1e-3), "attributes": 2, "images": 600}


def test_the_class_is_read_where_data_have_no_attributes(tmp_path):
    x, bits = two_attributes(90)
    found = asked(probe, probe_records, Parts(classifier=Pixels()), data_of(x, bits[:, 0]), tmp_path)
    assert (found["probe/t=0"].value, found["probe/t=0"].n) == (1, 90)


def test_an_unconditional_diffusion_model_is_read_as_a_head_on_its_frozen_features_is(tmp_path):
    class Held(EpsDenoiser):
        def trained(self):
            return self

    x, bits = two_attributes(90)
    denoiser = Held(UNet(SHAPE[0], width=8, multipliers=[1], blocks=1, attention=[]), DiscreteVP(100)).eval()
    right = []
    for parts in (Parts(denoiser), Parts(classifier=FrozenClassifier(denoiser, torch.nn.Identity()))):
        asked(probe, probe_records, parts, data_of(x, bits[:, 0]), tmp_path)
        right.append(load_arrays(tmp_path / "probe.npz")["right"])
    np.testing.assert_array_equal(*right)
    assert right[0][0].mean() > right[0][-1].mean()


def test_methods_without_the_part_say_why(tmp_path):
    x, bits = two_attributes(20)
    for question, records, reason in (
        (curves, curves_records, "no denoiser"),
        (probe, probe_records, "no features of noisy images"),
    ):
        found = asked(question, records, Parts(classifier=torch.nn.Flatten()), data_of(x, bits[:, 0]), tmp_path)
        assert {record.reason for record in found.values()} == {reason}


def test_training_images_are_never_floats_all_at_once(tmp_path, gaussian):
    mixture, x, y = gaussian
    many = torch.full((1, *SHAPE), 3, dtype=torch.uint8).expand(20_000, -1, -1, -1)
    data = data_of(x, y)
    data.images = lambda part: (many, None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as watched:
        asked(curves, curves_records, Parts(ExactDenoiser(mixture, VE)), data, tmp_path)
    np.testing.assert_array_equal(load_arrays(tmp_path / "curves.npz")["mean"], 3)
    assert max(event.self_cpu_memory_usage for event in watched.events()) < many.numel()
