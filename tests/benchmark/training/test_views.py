"""Pictures of samples in a training: no state of a method ends its training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Trainer
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture

from benchmark.training.views import Views, sample_grid
from datamodules.grey_levels import GreyLevels
from methods.base import Denoiser, Method, Unsupported
from methods.diffusion.denoiser import EpsDenoiser, Pretrained
from methods.diffusion.process import VarianceExploding
from methods.diffusion.samplers import DDIM
from methods.networks.unet import UNet

SHAPE, VE = (1, 4, 4), VarianceExploding(sigma_min=0.01, sigma_max=5.0)
DATA = SimpleNamespace(grey=GreyLevels(256), shape=SHAPE, classes=3)


class Exact(Method):
    """A mixture's exact denoiser and classifier."""

    def __init__(self, scale):
        mixture = GaussianMixture.example(SHAPE)
        parts = ExactDenoiser(mixture, VE), ExactClassifier(mixture, VE), DDIM(4)
        super().__init__(*parts, guidance_scale=scale)

    def losses(self, batch):
        return {}


class OfCleanImages(Exact):
    """A method whose classifier cannot guide."""

    def guidance(self):
        raise Unsupported("its classifier has seen clean images only")


class Overflowing(Denoiser):
    """A denoiser without bounds."""

    def __init__(self, denoiser):
        super().__init__()
        self.process = denoiser.process

    def forward(self, x_t, t, y=None):
        return x_t / 0


@pytest.fixture
def unguided():
    return sample_grid(Exact(0.0), DATA)


def test_samples_of_each_class_are_shown(unguided):
    assert unguided.shape == (5 * 32, 10 * 32, 3)
    assert (sample_grid(Exact(3.0), DATA) != unguided).any()


def test_samples_have_no_class_where_the_classifier_cannot_guide(unguided):
    np.testing.assert_array_equal(sample_grid(OfCleanImages(1.0), DATA), unguided)


def test_there_is_no_picture_of_samples_that_are_not_finite():
    method = Exact(0.0)
    method.denoiser = Overflowing(method.denoiser)
    assert sample_grid(method, DATA) is None


def test_there_is_no_picture_while_weights_that_sampling_alone_needs_are_trained(tmp_path):
    method = Exact(0.0)
    other = EpsDenoiser(UNet(SHAPE[0], width=8, multipliers=[1], blocks=1, attention=[]), VE)
    method.denoiser = Pretrained(other, str(tmp_path / "final.ckpt"))
    assert sample_grid(method, DATA) is None
    weights = {f"denoiser.{name}": value for name, value in other.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "final.ckpt")
    assert sample_grid(method, DATA) is not None


def test_a_long_training_is_viewed_twenty_times_at_most():
    for steps, every in ((950_000, 47_500), (1200, 500), (-1, 500)):
        views = Views(500)
        views.on_fit_start(Trainer(max_steps=steps, logger=False, enable_checkpointing=False, accelerator="cpu"), None)
        assert views.every == every
