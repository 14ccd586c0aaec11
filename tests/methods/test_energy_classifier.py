"""EGC: one energy whose gradient denoises and whose logits classify."""

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.guidance import ClassifierGuidance
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.energy_classifier import EnergyClassifier, EnergyDenoiser, EnergyLogits

MIXTURE = GaussianMixture.example((1, 2, 2))
PROCESSES = {"ve": VarianceExploding(0.01, 20.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class ExactEnergy(EnergyLogits):
    """``sigma log p(x_t) + log p(y | x_t)`` of the mixture."""

    def __init__(self, process) -> None:
        super().__init__(nn.Identity(), process, data_std=1.0)

    def scaled(self, x_t, t):
        alpha, sigma = self.process.scales(t, like=x_t.flatten(1))
        joint = MIXTURE.class_log_joint(x_t, alpha, sigma)
        density = joint.logsumexp(1, keepdim=True)
        return sigma * density + joint - density


class Smooth(nn.Module):
    """A network whose logits have dense second derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x, log_sigma):
        return self.head(torch.tanh(self.hidden(torch.cat([x.flatten(1), log_sigma[:, None]], dim=1))))


def noisy(process, n: int = 32):
    x, _ = MIXTURE.sample(n, torch.float64)
    t = process.times_at(torch.linspace(0.05, 0.95, n, dtype=torch.float64))
    return process.perturb(x, t)[0], t


@every_process
def test_the_gradient_of_the_exact_energy_is_the_exact_noise(process):
    x_t, t = noisy(process)
    found = EnergyDenoiser(ExactEnergy(process))
    exact = ExactDenoiser(MIXTURE, process)
    torch.testing.assert_close(found.eps(x_t, t), exact.eps(x_t, t), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found(x_t, t), exact(x_t, t), atol=1e-6, rtol=1e-6)
    joint = MIXTURE.class_log_joint(x_t, *process.scales(t, like=x_t))
    torch.testing.assert_close(ExactEnergy(process)(x_t, t), joint, atol=1e-6, rtol=1e-6)


@every_process
def test_guidance_by_its_logits_is_the_conditional_denoiser(process):
    x_t, t = noisy(process)
    y, energy = torch.arange(32) % 3, ExactEnergy(process)
    guided = ClassifierGuidance(EnergyDenoiser(energy), energy, 1.0)
    torch.testing.assert_close(guided(x_t, t, y), ExactDenoiser(MIXTURE, process)(x_t, t, y), atol=1e-6, rtol=1e-6)


@every_process
def test_a_network_that_tells_nothing_leaves_the_energy_of_gaussian_images(process):
    gaussian = GaussianMixture.gaussian((1, 2, 2), std=0.6)
    x_t, t = noisy(process)
    logits = EnergyLogits(lambda x, log_sigma: torch.zeros(len(x), 3), process, data_std=0.6)
    torch.testing.assert_close(EnergyDenoiser(logits).eps(x_t, t), ExactDenoiser(gaussian, process).eps(x_t, t))
    assert logits.scaled(x_t, t).diff(dim=1).abs().max() == 0


@every_process
def test_the_loss_is_the_error_of_the_gradient_and_the_cross_entropy_by_the_signal_that_is_left(process):
    method = EnergyClassifier(Smooth().double(), process, data_std=0.6, ce_weight=0.3)
    (x, y), more = MIXTURE.sample(8, torch.float64), MIXTURE.sample(4, torch.float64)[0]
    torch.manual_seed(3)
    found = method.losses({"labeled": (x, y), "unlabeled": more})
    torch.manual_seed(3)
    t = process.sample_times(12)
    x_t, eps = process.perturb(torch.cat([x, more]), t)
    x_t.requires_grad_()
    noise = [
        torch.autograd.grad(-method.classifier.scaled(x_t[i : i + 1], t[i : i + 1]).logsumexp(1).sum(), x_t)[0][i]
        for i in range(12)
    ]
    torch.testing.assert_close(found["denoise"], (torch.stack(noise) - eps).square().mean())
    clean = torch.full((8,), process.t_min)
    parts = [
        process.alpha(at).double() * F.cross_entropy(method.classifier(images, at), y, reduction="none")
        for images, at in ((x_t[:8], t[:8]), (x, clean))
    ]
    torch.testing.assert_close(found["classify"], 0.3 * torch.cat(parts).mean())


def test_the_squared_error_trains_the_network():
    method = EnergyClassifier(Smooth(), PROCESSES["vp"], ce_weight=0.0)
    method.losses({"labeled": MIXTURE.sample(8)})["denoise"].backward()
    assert all(
        weight.grad.abs().sum() > 0
        for weight in (method.classifier.network.hidden.weight, method.classifier.network.head.weight)
    )
