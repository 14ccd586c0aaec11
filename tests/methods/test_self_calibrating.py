"""Self-calibration fits the density that a classifier's logits define."""

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.networks.wrn import WideResNet
from methods.self_calibrating import SelfCalibrating

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.8)
PROCESSES = {"ve": VarianceExploding(0.1, 5.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


class Smooth(nn.Module):
    """A network whose logits have dense second derivatives, plus a ``common`` function of the image."""

    def __init__(self, common=lambda x: 0.0, d: int = 4) -> None:
        super().__init__()
        self.hidden, self.head, self.common = nn.Linear(d + 1, 8), nn.Linear(8, 3), common

    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        h = torch.cat([x.flatten(1), log_sigma[:, None]], dim=1)
        return self.head(torch.tanh(self.hidden(h))) + self.common(x)


def method_on(process, network: nn.Module | None = None, **kwargs) -> SelfCalibrating:
    return SelfCalibrating(ExactDenoiser(MIXTURE, process), network or Smooth(), **kwargs)


def seeded(method: SelfCalibrating, batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return method.losses(batch)


def draws(process, x: torch.Tensor):
    """``t, x_t, eps`` as ``seeded`` draws them."""
    torch.manual_seed(3)
    t = process.sample_times(len(x))
    return t, *process.perturb(x, t)


@every_process
def test_calibration_of_the_exact_energy_is_its_score_matching_loss(process):
    """Logits ``log p(x_t, y)``: half the mean over images and pixels of ``(sigma score + eps)^2``."""
    method = method_on(process, lambda_sc=0.3)
    method.classifier = ExactClassifier(MIXTURE, process)
    x, y = MIXTURE.sample(64, torch.float64)
    found = seeded(method, {"labeled": (x, y)})
    t, x_t, eps = draws(process, x)
    alpha, sigma = process.scales(t, like=x)
    residual = sigma * MIXTURE.score(x_t, alpha, sigma) + eps
    torch.testing.assert_close(found["calibrate"], 0.3 * 0.5 * residual.square().mean())
    posterior = MIXTURE.class_log_joint(x_t, alpha, sigma).log_softmax(1)
    torch.testing.assert_close(found["classify"], F.nll_loss(posterior, y))


class Perturbed(nn.Module):
    """The exact logits plus ``shift h(x)`` on all of them and ``weight_y g(x)`` on each."""

    def __init__(self, process, shift: float) -> None:
        super().__init__()
        self.exact = ExactClassifier(MIXTURE, process)
        self.shift = nn.Parameter(torch.tensor([shift, 0.0], dtype=torch.float64))
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.process = process

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        flat = x_t.flatten(1)
        common = self.shift[0] * flat.sin().sum(1) + self.shift[1] * flat.cos().prod(1)
        return self.exact(x_t, t) + common[:, None] + self.weight * flat[:, :1].tanh()


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_the_gradient_of_the_loss_vanishes_at_the_exact_energy_and_nowhere_near(name):
    process = PROCESSES[name]

    def score_of_the_gradient(shift: float) -> torch.Tensor:
        """Mean gradient over its standard error, for each parameter."""
        method = method_on(process)
        method.classifier = Perturbed(process, shift)
        parameters = [method.classifier.shift, method.classifier.weight]
        gradients = []
        for _ in range(40):
            loss = method.losses({"labeled": MIXTURE.sample(250, torch.float64)})["calibrate"]
            gradients.append(torch.cat(torch.autograd.grad(loss, parameters)))
        gradients = torch.stack(gradients)
        return gradients.mean(0) / (gradients.std(0) / len(gradients) ** 0.5)

    assert score_of_the_gradient(0.0).abs().max() < 4
    assert score_of_the_gradient(0.5)[0].abs() > 20


def test_cross_entropy_is_blind_to_a_common_shift_and_calibration_is_not():
    process = PROCESSES["ve"]
    plain, shifted = Smooth(), Smooth(common=lambda x: 5 * x.flatten(1).sin().sum(1, keepdim=True))
    shifted.load_state_dict(plain.state_dict())
    batch = {"labeled": MIXTURE.sample(32)}
    without, with_shift = seeded(method_on(process, plain), batch), seeded(method_on(process, shifted), batch)
    torch.testing.assert_close(with_shift["classify"], without["classify"])
    assert with_shift["calibrate"] > 1.5 * without["calibrate"]


class Normalised(Smooth):
    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        return super().forward(x, log_sigma).log_softmax(1)


class Flat(nn.Module):
    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
        return 0 * x.flatten(1)[:, :3]


@pytest.mark.parametrize("network", [Normalised, Flat], ids=["normalised logits", "constant logits"])
@every_process
def test_an_energy_without_gradient_pays_half_the_mean_square_of_the_noise(process, network):
    x, y = MIXTURE.sample(2000)
    found = seeded(method_on(process, network()), {"labeled": (x, y)})["calibrate"]
    eps = draws(process, x)[2]
    torch.testing.assert_close(found, 0.5 * eps.square().mean(), atol=1e-5, rtol=1e-5)
    assert found.item() == pytest.approx(0.5, abs=4 * 0.5 * (2 / x.numel()) ** 0.5)


def test_calibration_trains_every_weight_of_a_wide_resnet():
    network = WideResNet(1, 3, depth=10, width=1)
    method = SelfCalibrating(ExactDenoiser(GaussianMixture.example((1, 8, 8)), PROCESSES["ve"]), network)
    x = torch.randn(4, 1, 8, 8)
    method.losses({"labeled": (x, torch.arange(4) % 3)})["calibrate"].backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_labels_decide_who_is_classified_and_the_choice_decides_who_is_calibrated():
    process, network = PROCESSES["vp"], Smooth()
    (x, y), (u, _) = MIXTURE.sample(6), MIXTURE.sample(10)
    both, alone = {"labeled": (x, y), "unlabeled": u}, {"labeled": (x, y)}
    labeled, every = (method_on(process, network, calibrate=choice) for choice in ("labeled", "all"))

    expected = seeded(labeled, alone)
    assert seeded(labeled, both) == expected
    assert seeded(every, alone) == expected

    together = torch.cat([x, u])
    found = seeded(every, both)
    joined = seeded(every, {"labeled": (together, torch.zeros(16, dtype=torch.long))})
    torch.testing.assert_close(found["calibrate"], joined["calibrate"])
    t, x_t, _ = draws(process, together)
    torch.testing.assert_close(found["classify"], F.cross_entropy(every.classifier(x_t[:6], t[:6]), y))


def test_the_weight_is_on_the_calibration_alone():
    network, batch = Smooth(), {"labeled": MIXTURE.sample(8)}
    one, ten = (seeded(method_on(PROCESSES["ve"], network, lambda_sc=w), batch) for w in (1.0, 10.0))
    torch.testing.assert_close(ten["calibrate"], 10 * one["calibrate"])
    torch.testing.assert_close(ten["classify"], one["classify"])


@every_process
def test_guidance_goes_through_the_calibrated_classifier(process):
    method = method_on(process)
    method.classifier = ExactClassifier(MIXTURE, process)
    x, y = MIXTURE.sample(16, torch.float64)
    t = process.times_at(torch.linspace(0, 0.99, 16, dtype=torch.float64))
    x_t, _ = process.perturb(x, t)
    torch.testing.assert_close(method.guidance()(x_t, t, y), method.denoiser(x_t, t, y), atol=1e-8, rtol=1e-8)
