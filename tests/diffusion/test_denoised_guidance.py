"""Guidance by a classifier of clean images, and by a worse denoiser, where both are exact."""

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.clean_classifier import CleanClassifierGuidance
from methods.diffusion.autoguidance import AutoGuidance
from methods.diffusion.denoised_guidance import DenoisedClassifier, TrainingFreeGuidance
from methods.diffusion.guidance import ClassifierFreeGuidance, ClassifierGuidance
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding

MIXTURE = GaussianMixture.example((1, 2, 2))
PROCESSES = {"ve": VarianceExploding(0.05, 20.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
SLOPE = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)


def tilting(x: torch.Tensor) -> torch.Tensor:
    """Logits of which class 0 is so improbable that ``log p(0 | x)`` is ``SLOPE x`` and a constant."""
    tilt = x.flatten(1) @ SLOPE - 60
    return torch.stack([tilt, torch.zeros_like(tilt)], dim=1)


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def features(self, x):
        return torch.tanh(self.hidden(x.flatten(1)))

    def forward(self, x):
        return self.head(self.features(x))


def noisy(process, n: int = 16):
    x, _ = MIXTURE.sample(n, torch.float64)
    t = process.times_at(torch.linspace(0.05, 0.95, n, dtype=torch.float64))
    return process.perturb(x, t)[0], t, torch.arange(n) % 3


@every_process
@pytest.mark.parametrize(("mean_scale", "weight"), [(0.0, 2.0), (0.25, 4.0)])
def test_guidance_by_a_tilt_of_gaussian_images_is_the_denoiser_of_the_tilted_ones(process, mean_scale, weight):
    """N(0, I) times ``exp(w SLOPE x)`` is N(w SLOPE, I); four steps of a quarter weigh as much as the first term."""
    images = GaussianMixture.gaussian((1, 2, 2), std=1.0)
    tilted = GaussianMixture((weight * SLOPE).view(1, 1, 2, 2), torch.ones(1, dtype=torch.float64))
    denoiser = ExactDenoiser(images, process)
    x_t, t, _ = noisy(process)
    guided = TrainingFreeGuidance(denoiser, DenoisedClassifier(denoiser, tilting), 2.0, mean_scale, iterations=4)
    found = guided(x_t, t, torch.zeros(len(x_t), dtype=torch.long))
    torch.testing.assert_close(found, ExactDenoiser(tilted, process)(x_t, t), atol=1e-8, rtol=1e-6)


@every_process
def test_without_mean_guidance_it_is_classifier_guidance_by_the_classifier_of_estimates(process):
    denoiser, network = ExactDenoiser(MIXTURE, process), Smooth().double()
    classifier, (x_t, t, y) = DenoisedClassifier(denoiser, network), noisy(process)
    expected = ClassifierGuidance(denoiser, classifier, 1.5)(x_t, t, y)
    torch.testing.assert_close(TrainingFreeGuidance(denoiser, classifier, 1.5, mean_scale=0.0)(x_t, t, y), expected)


@every_process
def test_mean_guidance_ascends_from_the_estimate(process):
    denoiser, network = ExactDenoiser(MIXTURE, process), Smooth().double()
    x_t, t, y = noisy(process)
    classifier = DenoisedClassifier(denoiser, network)
    both, first = (TrainingFreeGuidance(denoiser, classifier, 1.5, m, iterations=3)(x_t, t, y) for m in (0.2, 0.0))
    x = denoiser(x_t, t)
    alpha, sigma = process.scales(t, like=x)
    for _ in range(3):
        x = x.detach().requires_grad_()
        log_p = F.log_softmax(network(x), dim=1)[range(len(y)), y].sum()
        x = x + 1.5 * 0.2 * sigma**2 / (sigma**2 + alpha**2) * torch.autograd.grad(log_p, x)[0]
    torch.testing.assert_close(both - first, x - denoiser(x_t, t))


def test_without_labels_it_is_the_denoiser():
    denoiser = ExactDenoiser(MIXTURE, PROCESSES["vp"])
    x_t, t, _ = noisy(PROCESSES["vp"])
    assert torch.equal(
        TrainingFreeGuidance(denoiser, DenoisedClassifier(denoiser, Smooth().double()))(x_t, t), denoiser(x_t, t)
    )


@every_process
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_estimates_count_by_their_weight_at_the_times_of_the_process(process, weight):
    method = CleanClassifierGuidance(ExactDenoiser(MIXTURE, process), Smooth(), denoised_weight=weight)
    x, y = MIXTURE.sample(16)
    torch.manual_seed(5)
    found = method.losses({"labeled": (x, y)})
    expected = {"classify": F.cross_entropy(method.classifier.network(x), y)}
    if weight:
        torch.manual_seed(5)
        t = process.sample_times(16)
        estimate = MIXTURE.denoise(process.perturb(x, t)[0], *process.scales(t, like=x)).float()
        expected["classify_denoised"] = weight * F.cross_entropy(method.classifier.network(estimate), y)
    torch.testing.assert_close(found, expected)


@every_process
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_autoguidance_scales_the_difference_of_two_scores(process, scale):
    good, weak = (GaussianMixture.gaussian((1, 2, 2), std=std) for std in (0.5, 0.8))
    x_t, t, y = noisy(process)
    guided = AutoGuidance(ExactDenoiser(good, process), ExactDenoiser(weak, process), scale)
    scores = [images.score(x_t, *process.scales(t, like=x_t)) for images in (weak, good)]
    expected = scores[0] + scale * (scores[1] - scores[0])
    torch.testing.assert_close(guided.score(x_t, t, 0 * y), expected, atol=1e-7, rtol=1e-6)


class Unlabeled(ExactDenoiser):
    def forward(self, x_t, t, y=None):
        return super().forward(x_t, t)


def test_autoguidance_by_the_denoiser_without_classes_is_classifier_free_guidance():
    process = PROCESSES["vp"]
    x_t, t, y = noisy(process)
    denoiser = ExactDenoiser(MIXTURE, process)
    guided = AutoGuidance(denoiser, Unlabeled(MIXTURE, process), 2.5)
    torch.testing.assert_close(guided(x_t, t, y), ClassifierFreeGuidance(denoiser, 2.5)(x_t, t, y))
