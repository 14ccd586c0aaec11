import copy

import pytest
import torch
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.denoiser import Denoiser, EDMDenoiser, EpsDenoiser, Pretrained
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding

PROCESSES = {"ve": VarianceExploding(), "vp": ContinuousVP(), "discrete": DiscreteVP(1000, pure_noise=True)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class Network(nn.Module):
    """A network with the interface of the real ones, told noise level and label."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.embed = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Embedding(3, 1)

    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        shift = torch.tanh(log_sigma)[:, None, None, None]
        return self.norm(self.conv(x)) + shift + (0 if y is None else self.embed(y)[:, :, None, None])


class Zero(nn.Module):
    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros_like(x)


PARAMETRISATIONS = {
    "eps": lambda process: EpsDenoiser(Network().eval(), process),
    "edm": lambda process: EDMDenoiser(Network().eval(), process, data_std=0.4),
    "exact": lambda process: ExactDenoiser(GaussianMixture.example((1, 4, 4)), process),
}


def noisy_batch(process, n=32, shape=(1, 4, 4), dtype=torch.float64):
    x, eps = torch.randn(2, n, *shape, dtype=dtype)
    t = process.times_at(torch.linspace(0, 0.999, n, dtype=dtype))
    return x, t, eps, torch.arange(n) % 3


@every_process
@pytest.mark.parametrize("make", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
@pytest.mark.parametrize("labeled", [False, True])
def test_image_noise_and_score_are_one_estimate(process, make, labeled):
    denoiser = make(process).double()
    x, t, eps, y = noisy_batch(process)
    y = y if labeled else None
    x_t, _ = process.perturb(x, t, eps)
    alpha, sigma = process.scales(t, like=x)
    noise = denoiser.eps(x_t, t, y)
    torch.testing.assert_close(alpha * denoiser(x_t, t, y) + sigma * noise, x_t, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(denoiser.score(x_t, t, y) * sigma, -noise)


@pytest.mark.parametrize("make", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_labels_reach_the_network(make):
    denoiser = make(PROCESSES["vp"]).double()
    x, t, _, y = noisy_batch(PROCESSES["vp"])
    assert (denoiser(x, t, y) - denoiser(x, t)).abs().amax((1, 2, 3)).min() > 0


def test_edm_is_the_published_preconditioning_without_signal_decay():
    """Karras et al. 2022, Table 1: c_skip, c_out and c_in; and their loss, Eq. 8, with its weight."""
    process, sd = PROCESSES["ve"], 0.4
    denoiser = EDMDenoiser(Network().eval(), process, sd).double()
    x, t, eps, _ = noisy_batch(process)
    sigma = process.sigma(t)[:, None, None, None]
    skip = sd**2 / (sigma**2 + sd**2)
    out = sigma * sd / torch.sqrt(sigma**2 + sd**2)
    scale = 1 / torch.sqrt(sigma**2 + sd**2)
    x_t = x + sigma * eps
    expected = skip * x_t + out * denoiser.network(scale * x_t, process.log_sigma(t))
    torch.testing.assert_close(denoiser(x_t, t), expected)
    weighted = ((sigma**2 + sd**2) / (sigma * sd) ** 2 * (expected - x) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(denoiser.matching_loss(x, t, eps), weighted)


@every_process
def test_edm_loss_weighs_the_denoising_error_at_any_signal_decay(process):
    denoiser = EDMDenoiser(Network().eval(), process, 0.4).double()
    x, t, eps, y = noisy_batch(process)
    alpha, sigma = process.scales(t, like=x)
    error = (denoiser(process.perturb(x, t, eps)[0], t, y) - x) ** 2
    weight = (sigma**2 + (0.4 * alpha) ** 2) / (0.4 * sigma) ** 2
    torch.testing.assert_close(denoiser.matching_loss(x, t, eps, y), (weight * error).mean((1, 2, 3)))


@every_process
def test_edm_without_a_network_is_exact_on_a_gaussian_of_its_deviation(process):
    x, t, eps, _ = noisy_batch(process)
    x_t, _ = process.perturb(0.4 * x, t, eps)
    exact = ExactDenoiser(GaussianMixture.gaussian((1, 4, 4), std=0.4), process)
    torch.testing.assert_close(EDMDenoiser(Zero(), process, 0.4)(x_t, t), exact(x_t, t))


def second_moments(std: float, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``n`` pairs of images of four pixels whose second moments are those of ``(std x, eps)``, exactly."""
    x = torch.tensor([std, std, -std, -std], dtype=torch.float64).view(1, 1, 2, 2).expand(n, 1, 2, 2)
    eps = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(1, 1, 2, 2).expand(n, 1, 2, 2)
    return x, eps


@every_process
def test_matching_loss_of_the_exact_denoiser_is_its_floor(process):
    std = 0.5
    x, eps = second_moments(std, 50)
    t = process.times_at(torch.linspace(0, 0.999, 50, dtype=torch.float64))
    alpha, sigma = process.alpha(t), process.sigma(t)
    floor = (alpha * std) ** 2 / ((alpha * std) ** 2 + sigma**2)
    exact = ExactDenoiser(GaussianMixture.gaussian((1, 2, 2), std), process)
    torch.testing.assert_close(exact.matching_loss(x, t, eps), floor)
    torch.testing.assert_close(EDMDenoiser(Zero(), process, std).matching_loss(x, t, eps), torch.ones_like(t))
    torch.testing.assert_close(EpsDenoiser(Zero(), process).matching_loss(x, t, eps), torch.ones_like(t))


def test_floor_of_the_matching_loss_has_the_published_value():
    process = VarianceExploding(0.1, 2.5)  # sigma = 0.5 in the middle
    x, eps = second_moments(0.3**0.5, 1)
    exact = ExactDenoiser(GaussianMixture.gaussian((1, 2, 2), 0.3**0.5), process)
    assert exact.matching_loss(x, torch.tensor([0.5]).double(), eps).item() == pytest.approx(0.5455, abs=5e-5)


@pytest.mark.parametrize("make", [PARAMETRISATIONS["eps"], PARAMETRISATIONS["edm"]], ids=["eps", "edm"])
@every_process
def test_single_precision_suffices_at_the_smallest_noise(process, make):
    denoiser = make(process)
    x, _, eps, _ = noisy_batch(process, dtype=torch.float32)
    t = torch.full((len(x),), process.t_min)
    x_t, _ = process.perturb(x, t, eps)
    single = denoiser.eps(x_t, t), denoiser.matching_loss(x, t, eps)
    denoiser = denoiser.double()
    t = torch.full((len(x),), process.t_min, dtype=torch.float64)
    double = denoiser.eps(x_t.double(), t), denoiser.matching_loss(x.double(), t, eps.double())
    for low, high in zip(single, double, strict=True):
        torch.testing.assert_close(low.double(), high, atol=2e-3, rtol=1e-4)


class Trained(nn.Module):
    """Stands for a method: a denoiser beside parts that a checkpoint also holds."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, nn.Linear(2, 2)


@pytest.fixture
def checkpoint(tmp_path):
    trained = Trained(EpsDenoiser(Network(), PROCESSES["ve"]).eval())
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    return trained.denoiser, tmp_path / "last.ckpt"


def untrained() -> Denoiser:
    return EpsDenoiser(Network(), PROCESSES["ve"])


def test_a_pretrained_denoiser_answers_as_the_one_that_was_trained(checkpoint):
    original, path = checkpoint
    pretrained = Pretrained(untrained(), str(path))
    x, t, eps, y = noisy_batch(original.process, dtype=torch.float32)
    assert pretrained.process.sigma_max == original.process.sigma_max
    torch.testing.assert_close(pretrained(x, t, y), original(x, t, y))
    torch.testing.assert_close(pretrained.eps(x, t, y), original.eps(x, t, y))
    torch.testing.assert_close(pretrained.score(x, t, y), original.score(x, t, y))
    torch.testing.assert_close(pretrained.matching_loss(x, t, eps), original.matching_loss(x, t, eps))


def test_a_pretrained_denoiser_is_neither_saved_nor_optimised_nor_copied(checkpoint):
    holder = Trained(Pretrained(untrained(), str(checkpoint[1])))
    holder.denoiser(torch.zeros(1, 1, 4, 4), torch.zeros(1))
    assert {name.split(".")[0] for name in holder.state_dict()} == {"classifier"}
    assert {name.split(".")[0] for name, _ in holder.named_parameters()} == {"classifier"}
    assert not any(True for _ in holder.denoiser.buffers())
    assert copy.deepcopy(holder).denoiser is holder.denoiser


def test_a_pretrained_denoiser_stays_frozen_in_a_method_that_trains(checkpoint):
    pretrained = Pretrained(untrained(), str(checkpoint[1]))
    holder = Trained(pretrained).train().requires_grad_(True)
    x = torch.randn(4, 1, 4, 4, requires_grad=True)
    before = holder.denoiser(x, torch.zeros(4))
    (gradient,) = torch.autograd.grad(before.sum(), x)
    assert gradient.abs().max() > 0
    assert torch.equal(holder.denoiser(x, torch.zeros(4)), before)  # no batch statistics, none updated
    assert not holder.denoiser(x.detach(), torch.zeros(4)).requires_grad


@pytest.mark.parametrize("loaded", [False, True], ids=["before its first use", "after its first use"])
def test_a_pretrained_denoiser_moves_with_its_method(checkpoint, loaded):
    original, path = checkpoint
    holder = Trained(Pretrained(untrained(), str(path)))
    x, t, _, _ = noisy_batch(original.process)
    if loaded:
        holder.denoiser(x.float(), t.float())
    torch.testing.assert_close(holder.double().denoiser(x, t), original.double()(x, t))


def test_a_missing_checkpoint_is_named_at_the_first_use_only(tmp_path):
    pretrained = Pretrained(untrained(), str(tmp_path / "none.ckpt"))
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt; train it first"):
        pretrained(torch.zeros(1, 1, 4, 4), torch.zeros(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": nn.Linear(2, 2).state_dict()}, "holds no weights named denoiser"),
        ({"weights": 1}, "holds no weights named denoiser"),
        ({"state_dict": Trained(EpsDenoiser(nn.Conv2d(1, 1, 3), PROCESSES["ve"])).state_dict()}, "another denoiser"),
    ],
)
def test_a_foreign_checkpoint_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=rf"foreign\.ckpt.*{message}"):
        Pretrained(untrained(), str(tmp_path / "foreign.ckpt"))(torch.zeros(1, 1, 4, 4), torch.zeros(1))
