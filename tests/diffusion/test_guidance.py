import pytest
import torch
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.denoiser import Clipped
from methods.diffusion.guidance import (
    AssistedClassifier,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    ConditionalClassifierGuidance,
    NoisyClassifier,
    class_log_prob,
)
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding

MIXTURE = GaussianMixture.example((1, 2, 2))
PROCESSES = {"ve": VarianceExploding(), "vp": ContinuousVP(), "discrete": DiscreteVP(1000, pure_noise=True)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class PairNetwork(nn.Module):
    """A smooth classifier of ``(x_t, x_hat)``; normalises each as a real one does, so it is not linear in either."""

    def __init__(self, d: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(2 * d, 8), nn.Linear(8, classes)

    def features(self, pair: tuple[torch.Tensor, torch.Tensor], log_sigma: torch.Tensor) -> torch.Tensor:
        flat = torch.cat([v.flatten(1) / (1 + v.flatten(1).norm(dim=1, keepdim=True)) for v in pair], dim=1)
        return torch.tanh(self.hidden(flat) + log_sigma[:, None])

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor], log_sigma: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(pair, log_sigma))


class ImageNetwork(PairNetwork):
    def features(self, x_t: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        return super().features((x_t, x_t), log_sigma)


def noisy_batch(process, n=32, dtype=torch.float64):
    x, _ = MIXTURE.sample(n, dtype)
    t = process.times_at(torch.linspace(0, 0.999, n, dtype=dtype))
    return process.perturb(x, t)[0], t, torch.arange(n) % 3


def exact(process) -> tuple[ExactDenoiser, ExactClassifier]:
    return ExactDenoiser(MIXTURE, process), ExactClassifier(MIXTURE, process)


def assisted(process) -> tuple[ExactDenoiser, AssistedClassifier]:
    denoiser = ExactDenoiser(MIXTURE, process)
    return denoiser, AssistedClassifier(denoiser, PairNetwork().double())


@every_process
def test_unit_guidance_is_the_conditional_denoiser(process):
    x_t, t, y = noisy_batch(process)
    denoiser, classifier = exact(process)
    guided = ClassifierGuidance(denoiser, classifier, scale=1.0)
    torch.testing.assert_close(guided(x_t, t, y), denoiser(x_t, t, y), atol=1e-9, rtol=1e-9)


@every_process
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_guidance_adds_the_scaled_class_score(process, scale):
    x_t, t, y = noisy_batch(process)
    denoiser, classifier = exact(process)
    guided = ClassifierGuidance(denoiser, classifier, scale)
    scales = process.scales(t, like=x_t)
    free, conditional = MIXTURE.score(x_t, *scales), MIXTURE.score(x_t, *scales, y)
    torch.testing.assert_close(guided.score(x_t, t, y), free + scale * (conditional - free), atol=1e-6, rtol=1e-6)
    expected = denoiser.eps(x_t, t) - scale * scales[1] * (conditional - free)
    torch.testing.assert_close(guided.eps(x_t, t, y), expected, atol=1e-8, rtol=1e-8)


@every_process
def test_guidance_of_a_denoiser_that_is_told_the_class_starts_from_the_conditional_score(process):
    x_t, t, y = noisy_batch(process)
    denoiser, classifier = exact(process)
    guided = ConditionalClassifierGuidance(denoiser, classifier, 1.5)
    scales = process.scales(t, like=x_t)
    free, conditional = MIXTURE.score(x_t, *scales), MIXTURE.score(x_t, *scales, y)
    expected = conditional + 1.5 * (conditional - free)
    torch.testing.assert_close(guided.score(x_t, t, y), expected, atol=1e-6, rtol=1e-6)


@every_process
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_classifier_free_guidance_is_exact_classifier_guidance(process, scale):
    x_t, t, y = noisy_batch(process)
    denoiser, classifier = exact(process)
    free = ClassifierFreeGuidance(denoiser, scale)
    torch.testing.assert_close(free(x_t, t, y), ClassifierGuidance(denoiser, classifier, scale)(x_t, t, y))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_without_labels_is_the_denoiser(scale):
    process = PROCESSES["vp"]
    x_t, t, _ = noisy_batch(process)
    denoiser, classifier = exact(process)
    by_classifier = (kind(denoiser, classifier, scale) for kind in (ClassifierGuidance, ConditionalClassifierGuidance))
    for guided in (*by_classifier, ClassifierFreeGuidance(denoiser, scale)):
        assert torch.equal(guided(x_t, t), denoiser(x_t, t))


def central_differences(function, x_t: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """Gradient of each image's ``function``, pixel by pixel."""
    gradient = torch.empty_like(x_t).flatten(1)
    for pixel in range(gradient.shape[1]):
        move = torch.zeros_like(gradient)
        move[:, pixel] = step
        move = move.view_as(x_t)
        gradient[:, pixel] = (function(x_t + move) - function(x_t - move)) / (2 * step)
    return gradient.view_as(x_t)


@every_process
def test_assisted_guidance_takes_the_total_derivative(process):
    x_t, t, y = noisy_batch(process)
    denoiser, classifier = assisted(process)
    guided = ClassifierGuidance(denoiser, classifier, scale=2.0)
    found = guided.score(x_t, t, y) - denoiser.score(x_t, t)
    total = central_differences(lambda moved: class_log_prob(classifier(moved, t), y), x_t)
    denoised = denoiser(x_t, t)
    partial = central_differences(lambda moved: class_log_prob(classifier.given(moved, denoised, t), y), x_t)
    torch.testing.assert_close(found, 2 * total, atol=1e-6, rtol=1e-5)
    assert (found - 2 * partial).norm() > 0.1 * found.norm()


@every_process
def test_jacobian_of_the_estimated_mean_is_the_posterior_covariance(process):
    x_t, t, _ = noisy_batch(process, n=12)
    denoiser = ExactDenoiser(MIXTURE, process)
    alpha, sigma = process.scales(t, like=x_t)
    leaf = x_t.clone().requires_grad_()
    x_hat = (alpha * denoiser(leaf, t)).flatten(1)
    rows = [torch.autograd.grad(x_hat[:, i].sum(), leaf, retain_graph=True)[0].flatten(1) for i in range(4)]
    jacobian = torch.stack(rows, dim=1)
    expected = (alpha / sigma)[..., 0] ** 2 * MIXTURE.covariance(x_t, alpha, sigma)
    torch.testing.assert_close(jacobian, expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(jacobian, jacobian.mT, atol=1e-8, rtol=1e-8)


@every_process
def test_guidance_by_the_estimate_alone_is_its_score_times_the_posterior_covariance(process):
    class Linear(nn.Module):
        def forward(self, pair, log_sigma):
            return pair[1].flatten(1) @ weight

    weight = torch.randn(4, 3, dtype=torch.float64)
    x_t, t, y = noisy_batch(process)
    denoiser = ExactDenoiser(MIXTURE, process)
    classifier = AssistedClassifier(denoiser, Linear())
    guided = ClassifierGuidance(denoiser, classifier, scale=1.0)
    alpha, sigma = process.scales(t, like=x_t)
    by_estimate = weight.T[y] - classifier(x_t, t).softmax(1) @ weight.T
    expected = torch.einsum("bij,bj->bi", MIXTURE.covariance(x_t, alpha, sigma), by_estimate).view_as(x_t)
    torch.testing.assert_close(guided(x_t, t, y) - denoiser(x_t, t), alpha * expected, atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize("make", [exact, assisted], ids=["noisy classifier", "assisted classifier"])
def test_a_guided_step_evaluates_the_denoiser_once(make):
    x_t, t, y = noisy_batch(PROCESSES["ve"])
    denoiser, classifier = make(PROCESSES["ve"])
    ClassifierGuidance(denoiser, classifier)(x_t, t, y)
    assert denoiser.calls == 1


def test_assistance_by_another_denoiser_is_kept():
    process = PROCESSES["vp"]
    x_t, t, y = noisy_batch(process)
    helper, classifier = assisted(process)
    guided = ExactDenoiser(GaussianMixture.gaussian((1, 2, 2)), process)
    change = ClassifierGuidance(guided, classifier)(x_t, t, y) - guided(x_t, t)
    torch.testing.assert_close(change, ClassifierGuidance(helper, classifier)(x_t, t, y) - helper(x_t, t))


@every_process
@pytest.mark.parametrize("make", [exact, assisted], ids=["noisy classifier", "assisted classifier"])
def test_guidance_of_an_image_does_not_depend_on_its_batch(process, make):
    x_t, t, y = noisy_batch(process, n=8)
    guided = ClassifierGuidance(*make(process), scale=2.0)
    alone = torch.cat([guided(x_t[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(guided(x_t, t, y), alone)


def test_guidance_differentiates_where_gradients_are_off_and_leaves_no_trace():
    x_t, t, y = noisy_batch(PROCESSES["ve"])
    denoiser, classifier = assisted(PROCESSES["ve"])
    guided = ClassifierGuidance(denoiser, classifier)
    with torch.no_grad():
        found = guided(x_t, t, y)
    torch.testing.assert_close(found, guided(x_t, t, y))
    assert not x_t.requires_grad
    assert not guided(x_t.clone().requires_grad_(), t, y).requires_grad
    assert all(p.grad is None for p in classifier.parameters())


@every_process
def test_assisted_classifier_reads_the_estimated_mean_of_the_kernel(process):
    x_t, t, _ = noisy_batch(process)
    denoiser, classifier = assisted(process)
    alpha, _ = process.scales(t, like=x_t)
    denoised = denoiser(x_t, t)
    inputs = (x_t, alpha * denoised), process.log_sigma(t)
    torch.testing.assert_close(classifier(x_t, t), classifier.network(*inputs))
    torch.testing.assert_close(classifier.given(x_t, denoised, t), classifier.network(*inputs))
    torch.testing.assert_close(classifier.features(x_t, t), classifier.network.features(*inputs))
    assert classifier.process is process


@every_process
def test_noisy_classifier_tells_its_network_the_log_noise_level(process):
    x_t, t, _ = noisy_batch(process)
    classifier = NoisyClassifier(ExactDenoiser(MIXTURE, process), ImageNetwork().double())
    log_sigma = torch.log(process.sigma(t) / process.alpha(t))
    torch.testing.assert_close(classifier(x_t, t), classifier.network(x_t, log_sigma))
    torch.testing.assert_close(classifier.features(x_t, t), classifier.network.features(x_t, log_sigma))


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_class_log_probabilities_are_computed_at_least_in_single_precision(given, computed):
    logits, y = torch.tensor([[30.0, 0.0, -30.0]], dtype=given), torch.tensor([2])
    log_prob = class_log_prob(logits, y)
    assert log_prob.dtype == computed
    assert log_prob.item() == pytest.approx(-60, abs=1e-5)


@every_process
def test_a_clipped_estimate_is_cut_before_the_class_score_is_added(process):
    x_t, t, y = noisy_batch(process)
    exact, classifier = ExactDenoiser(MIXTURE, process), ExactClassifier(MIXTURE, process)
    far = 40 * x_t
    clipped = Clipped(exact)
    estimate = exact(far, t).clamp(-1, 1)
    alpha, sigma = process.scales(t, like=far)
    torch.testing.assert_close(clipped(far, t), estimate)
    torch.testing.assert_close(clipped.eps(far, t), (far - alpha * estimate) / sigma)
    step = ClassifierGuidance(exact, classifier)(far, t, y) - exact(far, t)
    torch.testing.assert_close(ClassifierGuidance(clipped, classifier)(far, t, y), estimate + step)
