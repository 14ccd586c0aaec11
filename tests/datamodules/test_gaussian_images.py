"""Gaussian images: their covariance and density are those of the formula, from the data to bits per dimension."""

import math

import numpy as np
import pytest
import torch
from lightning import Trainer
from scipy.stats import kstest, multivariate_normal

from datamodules.base import stand_ins
from datamodules.digits import Digits
from datamodules.gaussian_images import GaussianImages
from methods.baselines.known_gaussian import KnownGaussian


def covariance(gamma):
    """Covariance of the toy, computed from the digits."""
    pixels = Digits().load("train")[0].reshape(1437, 64) / 8 - 1
    return math.sqrt(1 - gamma) * np.cov(pixels.T, bias=True) + math.sqrt(gamma) * np.eye(64)


@pytest.mark.parametrize("gamma", [1e-5, 1e-3, 0.1, 1.0])
def test_draws_have_the_covariance_of_the_other_data_set_mixed_with_the_identity(gamma):
    data = GaussianImages(Digits(), gamma, count=20_000, test_count=10)
    x = torch.cat([data.grey.centre(data.images(part)[0]) for part in ("train", "validation")])
    assert (data.shape, data.classes, len(x)) == ((1, 8, 8), 1, 20_000)
    expected = covariance(gamma)
    torch.testing.assert_close(data.unit**2 * data.scale_tril @ data.scale_tril.T, torch.from_numpy(expected))
    white = data.values(x).flatten(1).double().numpy() @ np.linalg.inv(np.linalg.cholesky(expected)).T
    assert np.abs(np.cov(white.T) - np.eye(64)).max() < 6 / math.sqrt(20_000)
    assert np.abs(white.mean(0)).max() < 5 / math.sqrt(20_000)
    assert kstest(white[:, 0], "norm").pvalue > 1e-3
    assert x.abs().max() < 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gamma", [1e-5, 1e-3, 0.1])
def test_the_true_density_is_the_closed_form_one_and_its_mean_the_analytic_value(gamma, tmp_path):
    data = GaussianImages(Digits(), gamma, count=100, test_count=1000, batch_size=10)
    method = KnownGaussian([1, 8, 8])
    Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(method, datamodule=data)  # fmt: skip
    x = torch.cat([batch["labeled"][0] for batch in data.test_dataloader()])
    in_the_toy = method.log_prob(x).double() - 64 * math.log(data.unit)
    truth = multivariate_normal(np.zeros(64), covariance(gamma))
    values = data.values(x).flatten(1).double().numpy()
    torch.testing.assert_close(in_the_toy, torch.from_numpy(truth.logpdf(values)), atol=1e-3, rtol=1e-5)
    analytic = -(math.log(2 * math.pi) + 1) / 2 - np.linalg.slogdet(covariance(gamma))[1] / 128
    error = 1 / math.sqrt(2 * 64 * 1000)
    assert in_the_toy.mean().item() / 64 == pytest.approx(analytic, abs=4 * error)
    bits = data.grey.bits_per_dim(method.log_prob(x), 64).mean().item()
    assert (12 - bits) * math.log(2) == pytest.approx(analytic, abs=4 * error)
    copy = KnownGaussian([1, 8, 8])
    copy.load_state_dict(method.state_dict())
    assert torch.equal(copy.log_prob(x), method.log_prob(x))


def test_pixels_that_follow_from_others_have_no_density():
    with pytest.raises(ValueError, match="gamma 0 is too small: some pixels of digits follow from others"):
        GaussianImages(Digits(), count=20, test_count=20)


def test_they_are_known_by_what_their_draws_follow_from():
    def prints(data):
        return [data.fingerprint(part) for part in ("train", "test")]

    plain = prints(GaussianImages(Digits(), 0.1, count=40, test_count=20))
    assert prints(GaussianImages(Digits(), 0.1, count=40, test_count=20, seed=5)) == plain
    for other in ({"data_seed": 1}, {"gamma": 0.2}, {"like": Digits(split_seed=1)}):
        settings = {"like": Digits(), "gamma": 0.1, "count": 40, "test_count": 20} | other
        assert not set(prints(GaussianImages(**settings))) & set(plain)
    held_out = prints(GaussianImages(Digits(), 0.1, count=40, test_count=20, split_seed=3))
    assert (held_out[0] != plain[0], held_out[1] == plain[1]) == (True, True)
    with stand_ins():
        data = GaussianImages(Digits(), 0.1, count=40, test_count=20)
        assert prints(data) == [None, None]
        assert data.sources == ()
