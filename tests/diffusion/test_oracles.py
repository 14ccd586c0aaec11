import math

import pytest
import torch
from oracles import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from methods import UNLABELED
from methods.diffusion.process import DiscreteVP

SCALES = [(1.0, 0.0), (1.0, 0.3), (1.0, 50.0), (0.7, 0.714), (0.01, 1.0), (0.0, 1.0)]
every_scale = pytest.mark.parametrize(("alpha", "sigma"), SCALES)


@pytest.fixture
def mixture():
    return GaussianMixture.example((1, 2, 2))


def noisy(mixture, alpha, sigma, n=16):
    x, y = mixture.sample(n, torch.float64)
    return alpha * x + sigma * torch.randn_like(x), y


@every_scale
def test_density_is_that_of_the_torch_mixture(mixture, alpha, sigma):
    covariances = alpha**2 * mixture.covariances + sigma**2 * torch.eye(4)
    components = MultivariateNormal(alpha * mixture.means, covariances)
    reference = MixtureSameFamily(Categorical(logits=mixture.log_weights), components)
    x_t, _ = noisy(mixture, alpha, sigma)
    torch.testing.assert_close(mixture.log_prob(x_t, alpha, sigma), reference.log_prob(x_t.flatten(1)))


@every_scale
@pytest.mark.parametrize("labeled", [False, True])
def test_score_is_the_gradient_of_the_density(mixture, alpha, sigma, labeled):
    x_t, y = noisy(mixture, alpha, sigma)
    y = y if labeled else None
    leaf = x_t.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(leaf, alpha, sigma, y).sum(), leaf)
    torch.testing.assert_close(mixture.score(x_t, alpha, sigma, y), gradient)


@every_scale
@pytest.mark.parametrize("labeled", [False, True])
def test_denoiser_obeys_tweedie(mixture, alpha, sigma, labeled):
    x_t, y = noisy(mixture, alpha, sigma)
    y = y if labeled else None
    moved = x_t + sigma**2 * mixture.score(x_t, alpha, sigma, y)
    torch.testing.assert_close(alpha * mixture.denoise(x_t, alpha, sigma, y), moved, atol=1e-9, rtol=1e-9)


@every_scale
def test_class_posterior_obeys_bayes(mixture, alpha, sigma):
    x_t, _ = noisy(mixture, alpha, sigma)
    joint = mixture.class_log_joint(x_t, alpha, sigma)
    torch.testing.assert_close(joint.logsumexp(1), mixture.log_prob(x_t, alpha, sigma))
    y = torch.full((16,), 2)
    torch.testing.assert_close(joint[:, 2], mixture.log_prob(x_t, alpha, sigma, y))
    weights = joint.softmax(1)
    averaged = sum(
        weights[:, k, None, None, None] * mixture.denoise(x_t, alpha, sigma, torch.full((16,), k)) for k in range(3)
    )
    torch.testing.assert_close(averaged, mixture.denoise(x_t, alpha, sigma))


def test_images_without_a_label_are_denoised_without_one(mixture):
    x_t, y = noisy(mixture, 1.0, 0.5)
    mixed = torch.where(torch.arange(16) % 2 == 0, y, UNLABELED)
    found = mixture.denoise(x_t, 1.0, 0.5, mixed)
    torch.testing.assert_close(found[::2], mixture.denoise(x_t, 1.0, 0.5, y)[::2])
    torch.testing.assert_close(found[1::2], mixture.denoise(x_t, 1.0, 0.5)[1::2])


def test_samples_have_the_moments_and_the_classes_of_the_mixture(mixture):
    n = 20_000
    x, y = mixture.sample(n, torch.float64)
    w = mixture.log_weights.exp()
    mean = w @ mixture.means
    second = torch.einsum("m,mij->ij", w, mixture.covariances + mixture.means[:, :, None] * mixture.means[:, None])
    flat = x.flatten(1)
    torch.testing.assert_close(flat.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(flat.T @ flat / n, second, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.bincount(y).double() / n, mixture.class_prior, atol=0.015, rtol=0)
    assert mixture.class_prior.tolist() == pytest.approx([4 / 9, 2 / 9, 3 / 9])


def test_scales_may_differ_from_image_to_image(mixture):
    x_t, y = noisy(mixture, 1.0, 0.5, n=4)
    alpha, sigma = torch.tensor([1.0, 0.9, 0.5, 0.0]), torch.tensor([0.1, 0.5, 0.8, 1.0])
    for function in (mixture.log_prob, mixture.denoise, mixture.score, mixture.covariance):
        one_by_one = [function(x_t[i : i + 1], alpha[i].item(), sigma[i].item(), y[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(function(x_t, alpha, sigma, y), torch.cat(one_by_one))


def test_level_densities_run_from_the_data_to_pure_noise(mixture):
    process = DiscreteVP(20, pure_noise=True)
    x, _ = noisy(mixture, 1.0, 0.0)
    levels = mixture.level_log_prob(x, process)
    normal = -0.5 * x.square().flatten(1).sum(1) - 2 * math.log(2 * math.pi)
    assert levels.shape == (16, 22)
    torch.testing.assert_close(levels[:, 0], mixture.log_prob(x))
    torch.testing.assert_close(levels[:, -1], normal)
    alpha, sigma = process.alpha(torch.tensor([7 / 21]).double()), process.sigma(torch.tensor([7 / 21]).double())
    torch.testing.assert_close(levels[:, 7], mixture.log_prob(x, alpha, sigma))
