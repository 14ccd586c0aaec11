"""The diffusion classifier against exact posteriors, and against the sum that defines it."""

import math

import pytest
import torch
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.error_classifier import ErrorClassifier
from methods.diffusion.levels import LevelClassifier, LevelDenoiser
from methods.diffusion.noise import KeyedNoise
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.3)
PROCESSES = {
    "ve": VarianceExploding(0.005, 50.0),
    "vp": ContinuousVP(),
    "discrete": DiscreteVP(4000, schedule="cosine", pure_noise=True),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def log_likelihood(x_t, alpha=1.0, sigma=0.0) -> torch.Tensor:
    """``log p(x_t | y)`` up to what is common to all classes."""
    exact = MIXTURE.class_log_joint(x_t, alpha, sigma) - MIXTURE.class_prior.log()
    return exact - exact.mean(1, keepdim=True)


def centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(1, keepdim=True)


@every_process
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5])
def test_the_posterior_is_exact_as_the_grid_grows(process, ratio):
    """Check clean images, and noisy ones: levels above theirs are enough, with the share of the noise that is new."""
    x, _ = MIXTURE.sample(16, torch.float64)
    t = (
        process.time(torch.full((16,), -2 * math.log(ratio), dtype=torch.float64))
        if ratio
        else torch.zeros(16).double()
    )
    x_t, _ = process.perturb(x, t) if ratio else (x, None)
    exact = log_likelihood(x_t, *(process.scales(t, like=x_t) if ratio else ()))
    denoiser = ExactDenoiser(MIXTURE, process)
    few, many = (centred(ErrorClassifier(denoiser, 3, times)(x_t, t)) - exact for times in (10, 300))
    assert many.square().mean() < 0.1 * few.square().mean()
    assert many.square().mean().sqrt() < 0.2 * exact.std()


class ByClass(nn.Module):
    """Smooth random functions of image, noise level and class."""

    def __init__(self, d: int = 4) -> None:
        super().__init__()
        self.label, self.linear = nn.Embedding(4, d), nn.Linear(d + 1, d)

    def forward(self, x, log_sigma, y):
        h = torch.cat([x.flatten(1), log_sigma[:, None].to(x.dtype)], dim=1)
        return torch.tanh(self.linear(h) + self.label(y)).view_as(x)


@every_process
def test_logits_are_the_trapezoidal_sum_image_by_image(process):
    denoiser = EpsDenoiser(ByClass().double(), process)
    x_t, t = torch.randn(3, 1, 2, 2).double(), process.times_at(torch.tensor([0.0, 0.3, 0.5]).double())
    lowest, highest, times = 0.02, 8.0, 5
    found = ErrorClassifier(denoiser, 3, times, lowest, highest)(x_t, t)
    draws = KeyedNoise(0, "error_classifier", [0], (1, 2, 2))
    noise = [draws()[0].double() for _ in range(times)]
    for i in range(3):
        r = (process.sigma(t[i : i + 1]) / process.alpha(t[i : i + 1])).item()
        low, high = max(lowest, 0.1 * r), math.sqrt(highest**2 - r**2)
        wanted = [low * (high / low) ** (k / (times - 1)) for k in range(times)]
        s = [process.time(torch.tensor([-2 * math.log(math.hypot(r, v))]).double()) for v in wanted]
        r_s = [(process.sigma(at) / process.alpha(at)).item() for at in s]
        v = [math.sqrt(max(0.0, ratio**2 - r**2)) for ratio in r_s]
        log_v = [math.log(min(max(value, low), high)) for value in v]
        for y in range(3):
            values = []
            for k, eps in enumerate(noise):
                x_s = process.alpha(s[k]) * (x_t[i] / process.alpha(t[i : i + 1]) + v[k] * eps)
                eps_hat = denoiser.eps(x_s[None], s[k], torch.tensor([y]))[0]
                values.append((v[k] / r_s[k] * eps_hat - eps).square().sum().item())
            total = sum((log_v[k + 1] - log_v[k]) * (values[k] + values[k + 1]) / 2 for k in range(times - 1))
            assert found[i, y].item() == pytest.approx(-total, rel=1e-4)


def test_an_answer_takes_as_many_evaluations_as_it_says():
    denoiser, evaluated = EpsDenoiser(ByClass(), PROCESSES["vp"]), []
    denoiser.network.register_forward_hook(lambda module, inputs, output: evaluated.append(len(output)))
    classifier = ErrorClassifier(denoiser, 3, 4)
    classifier(torch.randn(5, 1, 2, 2), torch.zeros(5))
    assert sum(evaluated) == 5 * classifier.nfe == 5 * 3 * 4


@every_process
def test_the_gradient_of_a_logit_is_that_of_its_sum(process):
    classifier = ErrorClassifier(EpsDenoiser(ByClass().double(), process), 3, 4, 0.02, 8.0)
    x_t, t = torch.randn(2, 1, 2, 2).double().requires_grad_(), process.times_at(torch.tensor([0.0, 0.3]).double())
    logits = classifier(x_t, t)
    (found,) = torch.autograd.grad(logits[:, 1].sum(), x_t)
    with torch.no_grad():
        assert torch.equal(logits, classifier(x_t, t))
        move = 1e-5 * torch.randn_like(x_t)
        change = (classifier(x_t + move, t) - classifier(x_t - move, t))[:, 1]
    torch.testing.assert_close((2 * move * found).flatten(1).sum(1), change, rtol=1e-4, atol=1e-10)


def test_an_image_is_answered_alike_alone_and_among_others():
    classifier = ErrorClassifier(EpsDenoiser(ByClass(), PROCESSES["vp"]), 3, 4)
    x, t = torch.randn(5, 1, 2, 2), torch.rand(5)
    torch.testing.assert_close(classifier(x, t)[3:4], classifier(x[3:4], t[3:4]))


def test_pure_noise_tells_no_class():
    process = PROCESSES["ve"]
    logits = ErrorClassifier(EpsDenoiser(ByClass(), process), 3, 4)(torch.randn(2, 1, 2, 2), torch.ones(2))
    assert (logits == logits[0, 0]).all()


def test_a_classifier_of_levels_is_asked_at_its_levels_alone():
    """A denoiser that is the gradient of a network, known at discrete levels, has errors like any other."""
    process = DiscreteVP(6, pure_noise=True)

    def network(x, y):
        return (1 + y[:, None]) * x.flatten(1).sum(1)[:, None] * torch.arange(8.0)

    classifier = ErrorClassifier(LevelDenoiser(LevelClassifier(network, process)), 2, 4)
    logits = classifier(torch.randn(2, 1, 2, 2), torch.zeros(2))
    assert logits.isfinite().all()
    assert logits.shape == (2, 2)
    assert (logits[:, 0] != logits[:, 1]).all()


def test_no_integral_is_refused():
    with pytest.raises(ValueError, match="times >= 2, got 1"):
        ErrorClassifier(EpsDenoiser(ByClass(), PROCESSES["ve"]), 3, times=1)
    with pytest.raises(ValueError, match="sigma_min < sigma_max, got 3 and 2"):
        ErrorClassifier(EpsDenoiser(ByClass(), PROCESSES["ve"]), 3, 4, sigma_min=3.0, sigma_max=2.0)
