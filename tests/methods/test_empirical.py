"""The training points as a distribution: exact by brute force, and what it tells about classifiers."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

from methods.baselines.empirical import EmpiricalDenoiser, EmpiricalDistribution, EmpiricalGuidance
from methods.diffusion.guidance import class_log_prob
from methods.diffusion.process import ContinuousVP, VarianceExploding
from methods.diffusion.samplers import Heun

PROCESSES = {"ve": VarianceExploding(0.01, 5.0), "vp": ContinuousVP()}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def fitted(process, n=30):
    generator = torch.Generator().manual_seed(0)
    points, y = torch.randn(n, 2, 1, 1, generator=generator, dtype=torch.float64), torch.arange(n) % 3
    denoiser = EmpiricalDenoiser([2, 1, 1], n, 3, process)
    denoiser.fit(points, y)
    x_t = torch.randn(8, 2, 1, 1, generator=generator, dtype=torch.float64)
    return denoiser, points, y, x_t, process.times_at(torch.linspace(0.3, 0.9, 8, dtype=torch.float64))


@every_process
def test_scores_are_gradients_of_the_log_density_of_the_noisy_points(process):
    denoiser, points, y, x_t, t = fitted(process)
    alpha, sigma = process.scales(t, like=x_t)
    x_t.requires_grad_()
    kernels = -(x_t[:, None] - alpha[:, None] * points).square().flatten(2).sum(2) / (2 * sigma.view(-1, 1) ** 2)
    for asked, log_density in ((None, kernels.logsumexp(1)), (1, kernels[:, y == 1].logsumexp(1))):
        (expected,) = torch.autograd.grad(log_density.sum(), x_t, retain_graph=True)
        labels = None if asked is None else torch.full((8,), asked)
        torch.testing.assert_close(denoiser.score(x_t, t, labels).detach(), expected, atol=1e-8, rtol=1e-6)


def test_the_density_of_the_noisy_points_is_scikit_learns():
    denoiser, points, y, x_t, _ = fitted(PROCESSES["ve"])
    t = PROCESSES["ve"].times_at(torch.full((8,), 0.6, dtype=torch.float64))
    sigma = float(PROCESSES["ve"].sigma(t)[0])
    found = denoiser.log_joint(x_t, t)
    kernels = [KernelDensity(bandwidth=sigma).fit(points[y == k].flatten(1).numpy()) for k in range(3)]
    expected = np.stack([kernel.score_samples(x_t.flatten(1).numpy()) for kernel in kernels], 1)  # ten points each
    np.testing.assert_allclose(found.softmax(1), torch.from_numpy(expected).softmax(1), rtol=1e-9)
    np.testing.assert_allclose(found - math.log(10 * 2 * math.pi * sigma**2), expected, atol=1e-9)


@every_process
def test_its_posterior_has_the_gradient_that_its_scores_say(process):
    method = EmpiricalDistribution(fitted(process)[0])
    _, _, _, x_t, t = fitted(process)
    y = torch.arange(8) % 3
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(class_log_prob(method.classifier(x_t, t), y).sum(), x_t)
    expected = method.denoiser.score(x_t, t, y) - method.denoiser.score(x_t, t)
    torch.testing.assert_close(gradient, expected.detach(), atol=1e-8, rtol=1e-6)


def test_without_noise_the_estimate_is_the_nearest_point_of_the_class():
    denoiser, points, y, x_t, _ = fitted(PROCESSES["ve"])
    found = denoiser(x_t, torch.zeros(8), torch.full((8,), 2))
    distances = (x_t[:, None] - points).flatten(2).norm(dim=2).masked_fill(y != 2, math.inf)
    torch.testing.assert_close(found, points[distances.argmin(1)], atol=1e-6, rtol=1e-6)


def test_samples_are_copies_of_training_points_of_the_class_asked_for():
    denoiser, points, labels, _, _ = fitted(PROCESSES["ve"])
    method = EmpiricalDistribution(denoiser, Heun(steps=30))
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(20) % 3
    x = method.sample(lambda: torch.randn(20, 2, 1, 1, generator=generator, dtype=torch.float64), y)
    distances = (x[:, None] - points).flatten(2).norm(dim=2)
    assert float(distances.amin(1).max()) < 0.05
    assert (labels[distances.argmin(1)] == y).all()


def test_another_number_of_points_is_refused():
    with pytest.raises(ValueError, match="train_images must be the 3 training points, got 4"):
        EmpiricalDenoiser([2, 1, 1], 4, 2, PROCESSES["ve"]).fit(torch.zeros(3, 2, 1, 1), torch.zeros(3))


@every_process
def test_multiplied_out_distances_are_those_of_differences_at_the_least_noise_of_the_toy(process):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 2, 1, 1, generator=generator, dtype=torch.float64) - 0.5
    process = VarianceExploding(2.5e-5, 0.25) if process is PROCESSES["ve"] else process
    denoiser = EmpiricalDenoiser([2, 1, 1], 200, 2, process)
    denoiser.fit(points, torch.arange(200) % 2)
    t = denoiser.process.times_at(torch.zeros(200, dtype=torch.float64))
    alpha, sigma = denoiser.process.scales(t, like=points)
    x_t = alpha * points + sigma * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    x_t[:20] = torch.rand(20, 2, 1, 1, generator=generator, dtype=torch.float64) * 2 - 1  # far from all points
    kernels = -((x_t[:, None] - alpha[:, None] * points) / sigma[:, None]).square().flatten(2).sum(2) / 2
    expected = (kernels.softmax(1) @ points.flatten(1)).view_as(points)
    torch.testing.assert_close(denoiser(x_t, t), expected, atol=1e-9, rtol=1e-6)
    joint = torch.stack([kernels[:, y::2].logsumexp(1) for y in range(2)], dim=1)
    torch.testing.assert_close(denoiser.log_joint(x_t, t), joint, atol=1e-5, rtol=1e-12)


@every_process
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_guidance_by_the_points_adds_the_difference_of_their_scores_to_the_score_model(process, scale):
    points, of, labels, x_t, t = fitted(process)
    flat = EmpiricalDenoiser([2, 1, 1], 2, 3, process)  # another score model: two points
    flat.fit(of[:2], labels[:2])
    method = EmpiricalGuidance(flat, [2, 1, 1], 30, 3, guidance_scale=scale)
    method.points.fit(of, labels)
    y = torch.arange(8) % 3
    expected = flat.score(x_t, t) + scale * (points.score(x_t, t, y) - points.score(x_t, t))
    torch.testing.assert_close(method.guidance().score(x_t, t, y).detach(), expected, atol=1e-8, rtol=1e-6)
