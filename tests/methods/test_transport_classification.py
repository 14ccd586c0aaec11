"""Classification diffusion on a straight line: the theorems with exact posteriors, and the loss written out."""

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.levels import LevelClassifier, SinglePass
from methods.diffusion.noise import KeyedNoise
from methods.diffusion.samplers import DDIM, DDPM
from methods.diffusion.transport import StraightLine, TransportDenoiser
from methods.transport_classification import TransportClassification

MIXTURE = GaussianMixture.example((1, 2, 2))
PROCESS = StraightLine(60)


class ExactLevels(nn.Module):
    """Logits of the optimal classifier of levels that are drawn unevenly."""

    def __init__(self, prior: torch.Tensor, mixture: GaussianMixture = MIXTURE) -> None:
        super().__init__()
        self.levels, self.log_prior, self.mixture = PROCESS.last + 1, prior.log(), mixture

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        scales = PROCESS.levels(torch.arange(self.levels) / PROCESS.last)
        found = [self.mixture.log_prob(x, level.alpha, level.sigma) for level in scales]
        return (self.log_prior + torch.stack(found, dim=1)).to(x.dtype)


def exact(mixture: GaussianMixture = MIXTURE) -> TransportDenoiser:
    prior = 0.1 + torch.rand(PROCESS.last + 1, dtype=torch.float64)
    return TransportDenoiser(LevelClassifier(ExactLevels(prior / prior.sum(), mixture), PROCESS, prior=prior))


def test_levels_lie_on_a_straight_line_and_have_their_inverse():
    t = torch.arange(62, dtype=torch.float64) / 61
    torch.testing.assert_close(PROCESS.alpha(t), 1 - t)
    torch.testing.assert_close(PROCESS.sigma(t), t)
    inner = t[1:-1]
    torch.testing.assert_close(PROCESS.log_snr(inner), 2 * torch.log((1 - inner) / inner))
    torch.testing.assert_close(PROCESS.time(PROCESS.log_snr(t)), t)
    assert (PROCESS.double().alpha_bar.dtype, PROCESS.last) == (torch.float64, 61)
    x, eps = torch.randn(62, 1, 2, 2).double(), torch.randn(62, 1, 2, 2).double()
    torch.testing.assert_close(PROCESS.perturb(x, t, eps)[0], torch.lerp(x, eps, t[:, None, None, None]))
    with pytest.raises(ValueError, match="has none in between"):
        PROCESS.continuous()


@pytest.mark.parametrize("level", [1, 7, 30, 60])
def test_noise_and_images_follow_from_the_gradient_of_the_exact_posterior(level):
    x, _ = MIXTURE.sample(32, torch.float64)
    t = torch.full((32,), level / 61, dtype=torch.float64)
    x_t, _ = PROCESS.perturb(x, t)
    truth, denoiser = ExactDenoiser(MIXTURE, PROCESS), exact()
    torch.testing.assert_close(denoiser(x_t, t), truth(x_t, t), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(denoiser.eps(x_t, t), truth.eps(x_t, t), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(denoiser.score(x_t, t), truth.score(x_t, t), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        denoiser.levels.log_prob(x_t, t), MIXTURE.log_prob(x_t, 1 - level / 61, level / 61), atol=1e-9, rtol=1e-9
    )


def test_a_single_pass_gives_the_density_of_the_data():
    x, _ = MIXTURE.sample(32, torch.float64)
    torch.testing.assert_close(SinglePass(exact())(x), MIXTURE.log_prob(x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampler", [DDPM(60), DDIM(60)], ids=["ddpm", "ddim"])
def test_samplers_reach_the_variance_of_the_data(sampler):
    gaussian = GaussianMixture.gaussian((1, 2, 2), std=0.5, mean=0.3)
    noise = KeyedNoise(0, "sample", range(2000), (1, 2, 2))
    found = sampler(exact(gaussian), lambda: noise().double())
    assert found.mean().item() == pytest.approx(0.3, abs=0.03)
    assert found.std().item() == pytest.approx(0.5, rel=0.05)


class Quadratic(nn.Module):
    """Logits that are no function of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 8), nn.Linear(8, 62)

    def forward(self, x, y=None):
        return self.out(self.hidden(x.flatten(1)).square())


def test_the_loss_is_cross_entropy_and_the_squared_error_of_the_gradient_s_noise():
    method = TransportClassification(Quadratic(), PROCESS, ce_weight=0.2, mse_weight=3.0)
    x = torch.randn(9, 1, 2, 2)
    torch.manual_seed(4)
    found = method.losses({"labeled": (x, torch.zeros(9))})
    torch.manual_seed(4)
    level = (torch.rand(9) * 62).floor().long()
    eps = torch.randn_like(x)
    sigma = (level / 61)[:, None, None, None]
    x_t = ((1 - sigma) * x + sigma * eps).requires_grad_()
    logits = method.denoiser.levels.network(x_t)
    (slope,) = torch.autograd.grad((logits[:, -1] - logits[torch.arange(9), level]).sum(), x_t)
    expected = {
        "level": 0.2 * F.cross_entropy(logits, level),
        "denoise": 3.0 * F.mse_loss(sigma * (slope + x_t), eps),
    }
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found["denoise"].backward()
    assert method.denoiser.levels.network.hidden.weight.grad.any()
