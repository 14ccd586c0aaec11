"""Classification diffusion: the two theorems with exact posteriors, the losses, and what labels and an anchor do."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from oracles import ExactDenoiser, GaussianMixture
from torch import Tensor, nn

from benchmark.training.callbacks import EMA
from datamodules.digits import Digits
from methods import UNLABELED
from methods.base import KeyedNoise
from methods.classification_diffusion import ClassificationDiffusion
from methods.diffusion.guidance import ClassifierGuidance
from methods.diffusion.levels import (
    BayesClassifier,
    GaussianAnchor,
    LevelClassifier,
    LevelDenoiser,
    SinglePass,
    level_groups,
)
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.diffusion.samplers import DDPM
from methods.networks.level_network import EncoderTrunk, LevelNetwork

SCHEDULES = {name: DiscreteVP(60, name, pure_noise=True) for name in ("linear", "uniform", "cosine")}
every_schedule = pytest.mark.parametrize("process", SCHEDULES.values(), ids=SCHEDULES)
MIXTURE = GaussianMixture.example((1, 2, 2))


class ExactLevels(nn.Module):
    """Logits ``log p(t) + log p_t(x, y)`` of the optimal level classifier of a mixture."""

    def __init__(self, process: DiscreteVP, prior: Tensor | None = None, classes: int | None = MIXTURE.num_classes):
        super().__init__()
        self.levels, self.classes = process.last + 1, classes
        self.scales = process.levels(torch.arange(self.levels) / process.last)
        self.log_prior = torch.zeros(self.levels) if prior is None else prior.log()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        found = [MIXTURE.log_prob(x, level.alpha, level.sigma, y) for level in self.scales]
        return (self.log_prior + torch.stack(found, dim=1)).to(x.dtype)


class GaussianLevels(nn.Module):
    """The optimal logits of N(0, s^2 I) images, by their formula."""

    def __init__(self, process: DiscreteVP, std: float) -> None:
        super().__init__()
        self.variances = process.alpha_bar * std**2 + 1 - process.alpha_bar

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        square = x.double().square().flatten(1).sum(1, keepdim=True)
        return -0.5 * (x[0].numel() * self.variances.log() + square / self.variances).to(x.dtype)


def uneven(process: DiscreteVP) -> Tensor:
    return 0.1 + torch.rand(process.last + 1, dtype=torch.float64)


def exact_classifier(process: DiscreteVP) -> LevelClassifier:
    """With levels of uneven weight, which the theorems allow."""
    prior = uneven(process)
    return LevelClassifier(ExactLevels(process, prior), process, prior=prior)


def noisy(process: DiscreteVP, n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Images at levels ``1 .. T``, and classes."""
    x, y = MIXTURE.sample(n)
    t = process.times_at(torch.arange(n) / n)
    return process.perturb(x, t)[0], t, y


def exact_method(process: DiscreteVP = SCHEDULES["cosine"], **kwargs) -> ClassificationDiffusion:
    return ClassificationDiffusion(ExactLevels(process), process, **kwargs)


def small_method(steps: int = 20, classes: int | None = None, **kwargs) -> ClassificationDiffusion:
    """A network of random weights on 8x8 images."""
    trunk = EncoderTrunk(1, width=8, multipliers=(1, 2), blocks=1, attention=(), classes=classes)
    method = ClassificationDiffusion(LevelNetwork(trunk, steps + 2), DiscreteVP(steps, pure_noise=True), **kwargs)
    for parameter in method.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return method


def labeled(n: int = 8) -> dict[str, tuple[Tensor, Tensor]]:
    return {"labeled": (torch.rand(n, 1, 8, 8) * 2 - 1, torch.arange(n) % 3)}


# The theorems.


@every_schedule
def test_gradient_of_the_level_posterior_is_the_denoiser(process):
    x_t, t, y = noisy(process)
    denoiser = LevelDenoiser(exact_classifier(process))
    scales = process.scales(t, like=x_t)
    for labels in (None, y):
        expected = MIXTURE.denoise(x_t, *scales, labels).float()
        torch.testing.assert_close(denoiser(x_t, t, labels), expected, atol=1e-4, rtol=1e-4)
        expected = MIXTURE.score(x_t, *scales, labels).float()
        torch.testing.assert_close(denoiser.score(x_t, t, labels), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(denoiser.eps(x_t, t, labels), -scales[1] * expected, atol=1e-4, rtol=1e-4)


@every_schedule
def test_a_single_pass_gives_the_density_at_every_level(process):
    x_t, t, _ = noisy(process)
    likelihood = SinglePass(LevelDenoiser(exact_classifier(process)))
    expected = MIXTURE.log_prob(x_t, *process.scales(t, like=x_t)).float()
    torch.testing.assert_close(likelihood.at(x_t, t), expected, atol=1e-4, rtol=1e-4)
    noise = torch.randn_like(x_t)
    expected = torch.distributions.Normal(0, 1).log_prob(noise).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.at(noise, torch.ones_like(t)), expected, atol=1e-4, rtol=1e-4)


@every_schedule
def test_a_single_pass_gives_the_density_of_images(process):
    x, _ = MIXTURE.sample(64)
    likelihood = SinglePass(LevelDenoiser(exact_classifier(process)))
    torch.testing.assert_close(likelihood(x), MIXTURE.log_prob(x).float(), atol=1e-4, rtol=1e-4)
    assert (likelihood.kind, likelihood.nfe) == ("unnormalised", 1)


SIGN = {100: (0.685, 1.255, 0.719), 200: (0.326, 0.985, 0.498), 400: (0.057, 0.138, 0.744), 1000: (0.0, 0.0, 1.0)}


@pytest.mark.parametrize("level", SIGN)
def test_neither_the_sign_of_the_gradient_nor_its_companion_is_lost(level):
    """The two usual slips hide at opposite ends of the noise levels."""
    process = DiscreteVP(1000, pure_noise=True)
    denoiser = LevelDenoiser(LevelClassifier(GaussianLevels(process, 0.5), process))
    t = torch.full((400,), level / process.last)
    x_t, eps = process.perturb(0.5 * torch.randn(400, 1, 8, 8), t)
    with torch.no_grad():
        found, (_, slope) = denoiser.eps(x_t, t), denoiser.logits_and_slope(x_t, t)
    _, sigma = process.scales(t, like=x_t)
    right = (found - eps).square().mean()
    flipped = (sigma * (x_t + slope) - eps).square().mean()
    forgotten = (-sigma * slope - eps).square().mean()
    assert [float(v) for v in (right, flipped, forgotten)] == pytest.approx(SIGN[level], abs=0.025)


# Algebra of the logits.


def test_ends_of_the_levels_need_no_special_case():
    method = small_method()
    x = torch.randn(4, 1, 8, 8)
    clean, pure = torch.zeros(4), torch.ones(4)
    levels = method.denoiser.levels
    assert not levels.log_ratio(levels(x), pure).any()
    assert not method.denoiser.eps(x, clean).any()
    assert torch.equal(method.denoiser.eps(x, pure), x)
    torch.testing.assert_close(method.denoiser(x, clean), x)
    assert method.denoiser.score(x, clean).isfinite().all()


def test_a_common_function_of_the_image_changes_nothing():
    class Shifted(ExactLevels):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return super().forward(x, y) + (3 * x).sin().flatten(1).sum(1, keepdim=True) - 7

    process = SCHEDULES["uniform"]
    x_t, t, _ = noisy(process)
    plain, shifted = (LevelClassifier(network(process), process) for network in (ExactLevels, Shifted))
    torch.testing.assert_close(shifted.log_prob(x_t, t), plain.log_prob(x_t, t), atol=1e-4, rtol=1e-4)
    denoisers = LevelDenoiser(plain), LevelDenoiser(shifted)
    torch.testing.assert_close(denoisers[1](x_t, t), denoisers[0](x_t, t), atol=1e-4, rtol=1e-4)


def test_each_image_is_read_at_its_own_level():
    process = DiscreteVP(20, pure_noise=True)
    levels = LevelClassifier(nn.Identity(), process)
    logits, index = torch.randn(22, 22), torch.randperm(22)
    ratio = levels.log_ratio(logits, index / process.last)
    assert ratio.shape == (22,)
    assert torch.equal(ratio, torch.stack([logits[b, i] - logits[b, 21] for b, i in enumerate(index)]))


def test_gradients_of_an_image_do_not_depend_on_its_batch():
    method = small_method()
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.3, 0.5, 0.9])
    alone = torch.cat([method.denoiser(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(method.denoiser(x, t), alone, atol=1e-5, rtol=1e-4)


def test_denoiser_is_differentiable_where_gradients_are_on_and_leaves_no_trace_where_they_are_off():
    method = small_method()
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.5)
    with torch.no_grad():
        silent = method.denoiser(x, t)
        logits, _ = method.denoiser.logits_and_slope(x, t)
    assert not silent.requires_grad
    assert not logits.requires_grad
    assert not x.requires_grad
    assert all(p.grad is None for p in method.parameters())
    leaf = x.clone().requires_grad_()
    found = method.denoiser(leaf, t)
    torch.testing.assert_close(found, silent)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    step = 1e-2 * torch.randn_like(x)
    change = method.denoiser(x + step, t).sum() - method.denoiser(x - step, t).sum()
    assert float(2 * (gradient * step).sum()) == pytest.approx(float(change.detach()), rel=0.05, abs=1e-3)


# Training.


def test_an_untrained_classifier_knows_nothing_of_the_level():
    trunk = EncoderTrunk(1, width=8, multipliers=(1, 2), blocks=1, attention=())
    method = ClassificationDiffusion(LevelNetwork(trunk, 102, norms=True), DiscreteVP(100, pure_noise=True), None, 1.0)
    assert float(method.losses(labeled())["level"]) == pytest.approx(math.log(102), abs=1e-4)


def test_levels_are_drawn_by_their_prior_and_uniformly_without_one():
    process = DiscreteVP(4, pure_noise=True)
    even = LevelClassifier(nn.Identity(), process)
    assert even.times_at(torch.arange(6) / 6 + 0.01).tolist() == pytest.approx([level / 5 for level in range(6)])
    assert even.times_at(torch.tensor([1.0])).item() == 1
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 1.0])
    drawn = LevelClassifier(nn.Identity(), process, prior=weights).times_at((torch.arange(1000) + 0.5) / 1000)
    assert torch.equal(process.index(drawn).bincount(), (100 * weights).long())


def test_losses_of_the_optimal_classifier_are_their_floors():
    """The error counts level 0, where it is 1, and pure noise, where it is 0, at ``1 / (T + 2)`` each."""
    process = DiscreteVP(100, pure_noise=True)
    network = GaussianLevels(process, 0.5)
    method = ClassificationDiffusion(network, process, ce_weight=0.5, mse_weight=2.0)
    x = 0.5 * torch.randn(4000, 1, 4, 4)
    terms = method.losses({"labeled": (x, torch.zeros(4000))})
    floors = process.alpha_bar * 0.25 / network.variances
    assert floors[0] == 1
    assert float(terms["denoise"]) == pytest.approx(2 * float(floors.mean()), abs=0.03)
    index = torch.arange(4000) % 102
    x_t, _ = process.perturb(x, index / process.last)
    assert float(terms["level"]) == pytest.approx(0.5 * float(F.cross_entropy(network(x_t), index)), abs=0.05)


@pytest.mark.parametrize(("ce_weight", "mse_weight"), [(0.0, 1.0), (0.5, 0.0), (0.1, 1.0)], ids=["mse", "ce", "both"])
def test_each_loss_can_stand_alone_and_reaches_every_weight(ce_weight, mse_weight):
    method = small_method(ce_weight=ce_weight, mse_weight=mse_weight)
    terms = method.losses(labeled())
    assert set(terms) == ({"level", "denoise"} if mse_weight else {"level"})
    assert (float(terms["level"].detach()) == 0) == (ce_weight == 0)
    sum(terms.values()).backward()
    assert [name for name, p in method.named_parameters() if p.grad is None] == []
    assert method.denoiser.levels.network.trunk.encoder.stem.convs[0].weight.grad.any()


def test_unlabeled_images_are_trained_on_too():
    method, seen = small_method(classes=3, label_dropout=0.0), []
    network = method.denoiser.levels.network
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    method.losses(labeled(4) | {"unlabeled": torch.zeros(3, 1, 8, 8)})
    assert seen[0][0].shape == (7, 1, 8, 8)
    assert seen[0][1].tolist() == [0, 1, 2, 0, UNLABELED, UNLABELED, UNLABELED]


@pytest.mark.parametrize("training", [True, False])
def test_labels_are_dropped_for_the_null_class_in_training_only(training):
    method, seen = exact_method(label_dropout=0.25, mse_weight=0.0).train(training), []
    method.denoiser.levels.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    x, y = MIXTURE.sample(4000)
    method.losses({"labeled": (x, y)})
    (given,) = seen
    dropped = given == UNLABELED
    assert float(dropped.float().mean()) == pytest.approx(0.25 if training else 0.0, abs=0.03)
    assert torch.equal(given[~dropped], y[~dropped])


# Classes.


@pytest.mark.parametrize("level", [0, 10, 30, 61])
def test_bayes_rule_over_single_passes_is_the_class_posterior(level):
    process = SCHEDULES["linear"]
    classifier = exact_method(process, class_prior=(5 * MIXTURE.class_prior).tolist()).classifier
    assert isinstance(classifier, BayesClassifier)
    x, _ = MIXTURE.sample(64)
    t = torch.full((64,), level / process.last)
    x_t, _ = process.perturb(x, t)
    # The oracle's logits are of p_t(x, y), with a prior of their own; those of the benchmark are of p_t(x | y).
    expected = MIXTURE.class_log_joint(x_t, *process.scales(t, like=x_t))
    torch.testing.assert_close(classifier(x_t, t).softmax(1).double(), expected.softmax(1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(classifier(x_t, t).logsumexp(1).double(), expected.logsumexp(1), atol=1e-4, rtol=1e-4)


def test_class_prior_is_uniform_unless_given():
    x = torch.randn(8, 1, 2, 2)
    even = exact_method().classify(x, torch.ones(8)).softmax(1)
    torch.testing.assert_close(even, torch.full_like(even, 1 / 3))
    with pytest.raises(ValueError, match="class_prior must have 3 entries"):
        exact_method(class_prior=[0.5, 0.5])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_is_classifier_free(scale):
    method = exact_method(guidance_scale=scale)
    process = method.denoiser.process
    x_t, t, y = noisy(process)
    bayes = exact_method(class_prior=MIXTURE.class_prior.tolist()).classifier
    exact = ClassifierGuidance(ExactDenoiser(MIXTURE, process), bayes, scale)
    # At the last levels alpha is 1e-3: a rounding error of the gradient counts thousandfold.
    keep = t < 0.95
    found, expected = method.guidance()(x_t, t, y), exact(x_t, t, y)
    torch.testing.assert_close(found[keep], expected[keep], atol=1e-3, rtol=1e-3)


def test_only_a_class_conditional_model_knows_classes():
    process = SCHEDULES["cosine"]
    free = ClassificationDiffusion(ExactLevels(process, classes=None), process, DDPM(60))
    assert (free.conditional, exact_method().conditional) == (False, True)
    assert set(exact_method().unsupported) == {"sample", "masked", "denoise"}
    assert set(free.unsupported) - set(exact_method().unsupported) == {"classify"}
    assert exact_method().noisy_process is process


def test_samples_follow_the_class_and_leave_no_trace():
    process = DiscreteVP(30, "cosine", pure_noise=True)
    method = exact_method(process, sampler=DDPM(30))
    y = torch.arange(300) % 3
    x = method.sample(KeyedNoise(0, "sample", range(300), (1, 2, 2)), y)
    assert not x.requires_grad
    means = torch.stack([x[y == k].mean(0) for k in range(3)]).double()
    real, classes = MIXTURE.sample(6000, torch.float64)
    torch.testing.assert_close(means, torch.stack([real[classes == k].mean(0) for k in range(3)]), atol=0.12, rtol=0)


# The Gaussian anchor.


def moments(d: int = 4) -> tuple[Tensor, Tensor]:
    root = torch.randn(d, d, dtype=torch.float64) / 3
    return torch.randn(d, dtype=torch.float64) / 2, root @ root.mT + 0.01 * torch.eye(d)


@every_schedule
def test_anchor_is_the_log_density_of_a_gaussian_at_every_level(process):
    mean, covariance = moments()
    anchor = GaussianAnchor((1, 2, 2))
    anchor.fit(mean, covariance)
    x, _ = MIXTURE.sample(32)
    expected = GaussianMixture(mean.view(1, 1, 2, 2), covariance[None]).level_log_prob(x, process)
    torch.testing.assert_close(anchor(x, process.alpha_bar).double(), expected, atol=1e-3, rtol=1e-5)


def test_a_silent_network_on_an_anchor_is_the_gaussian():
    mean, covariance = moments()
    process = SCHEDULES["linear"]
    silent = LevelNetwork(EncoderTrunk(1, 4, (1,), 1, (), None), 62)
    method = ClassificationDiffusion(silent, process, anchor=GaussianAnchor((1, 2, 2)))
    method.denoiser.levels.anchor.fit(mean, covariance)
    gaussian = GaussianMixture(mean.view(1, 1, 2, 2), covariance[None])
    x_t, t, _ = noisy(process)
    expected = ExactDenoiser(gaussian, process)(x_t, t)
    torch.testing.assert_close(method.denoiser(x_t, t), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(method.log_prob(x_t).double(), gaussian.log_prob(x_t), atol=1e-3, rtol=1e-5)


def test_an_anchor_that_was_not_fitted_adds_nothing():
    plain = small_method()
    anchored = copy.deepcopy(plain)
    anchored.denoiser.levels.anchor = GaussianAnchor((1, 8, 8))
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 0.3)
    torch.testing.assert_close(anchored.log_prob(x), plain.log_prob(x), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(anchored.denoiser(x, t), plain.denoiser(x, t), atol=1e-5, rtol=1e-4)


class Fitted(ClassificationDiffusion):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted() -> Fitted:
    network = LevelNetwork(EncoderTrunk(1, 4, (1,), 1, (), None), 12)
    return Fitted(network, DiscreteVP(10, pure_noise=True), anchor=GaussianAnchor((1, 8, 8)))


def trainer(folder: Path) -> Trainer:
    return Trainer(
        max_steps=2, default_root_dir=folder, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0, callbacks=[EMA(0.9)], accelerator="cpu",
    )  # fmt: skip


def test_anchor_is_fitted_to_the_dequantised_training_images_before_training(tmp_path):
    method, data = fitted(), Digits(batch_size=8)
    trainer(tmp_path).fit(method, datamodule=data)
    images = data.images("train")[0]
    x = torch.cat([data.dequantised(images, draw) for draw in range(30)]).flatten(1).double()
    anchor = method.denoiser.levels.anchor
    covariance = (anchor.axes * anchor.variances) @ anchor.axes.mT
    torch.testing.assert_close(anchor.mean.double(), x.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(covariance.double(), torch.cov(x.mT), atol=2e-3, rtol=0)
    rebuilt, part = fitted(), x[:4].float().view(4, 1, 8, 8)
    rebuilt.load_state_dict(method.state_dict())
    assert torch.equal(rebuilt.log_prob(part), method.log_prob(part))


def test_anchor_asks_for_a_datamodule(tmp_path):
    method = fitted()
    with pytest.raises(ValueError, match="training images of a datamodule"):
        trainer(tmp_path).fit(method, torch.utils.data.DataLoader([0]))


# Diagnostics.


def diagnostics(method: ClassificationDiffusion, x: Tensor, indices: range) -> dict[str, Tensor]:
    return method.likelihood.diagnostics(
        x, KeyedNoise(0, "diagnostics", indices, x.shape[1:]), torch.tensor([0.25, 0.75])
    )


def log_mass(steps: Tensor) -> float:
    return float((steps.double().logsumexp(0) - math.log(len(steps))).sum())


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_steps_of_the_optimal_classifier_telescope_to_mass_one(name):
    process = DiscreteVP(12, name, pure_noise=True)
    prior = uneven(process)
    method = exact_method(process)
    method.denoiser.levels = LevelClassifier(ExactLevels(process, prior), process, prior=prior)
    x, _ = MIXTURE.sample(3000)
    found = diagnostics(method, x, range(3000))
    assert found["level_balance"].shape == (3000, 13)
    assert log_mass(found["level_balance"]) == pytest.approx(0, abs=0.25)


def test_level_balance_shows_the_mass_that_was_added_to_a_density():
    class Doubled(ExactLevels):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return super().forward(x, y) + math.log(2) * (torch.arange(self.levels) == 0)

    process = DiscreteVP(10, "cosine", pure_noise=True)
    x, _ = MIXTURE.sample(200)
    methods = [ClassificationDiffusion(network(process), process) for network in (ExactLevels, Doubled)]
    found = [log_mass(diagnostics(method, x, range(200))["level_balance"]) for method in methods]
    assert found[1] - found[0] == pytest.approx(math.log(2), abs=1e-4)


def test_the_density_along_the_ode_is_that_of_the_denoiser_and_of_the_images():
    process = DiscreteVP(60, "cosine", pure_noise=True)
    method = exact_method(process)
    x, _ = MIXTURE.sample(100)
    found = diagnostics(method, x, range(100))["ode_log_prob"]
    assert float((found - MIXTURE.log_prob(x)).mean()) == pytest.approx(0, abs=0.15)


def test_diagnostics_are_keyed_to_the_image_and_score_the_level():
    process = DiscreteVP(12, "cosine", pure_noise=True)
    method = exact_method(process)
    x, _ = MIXTURE.sample(600)
    together = diagnostics(method, x, range(600))
    part = diagnostics(method, x[7:11], range(7, 11))
    for name, values in together.items():
        torch.testing.assert_close(part[name], values[7:11], atol=1e-5, rtol=1e-5)
        assert not values.requires_grad
    t = torch.arange(600) % 14 / process.last
    x_t, _ = process.perturb(x, t)
    expected = F.cross_entropy(method.denoiser.levels(x_t), process.index(t))
    assert float(together["level_ce"].mean()) == pytest.approx(float(expected), abs=0.2)


def test_levels_that_the_optimal_classifier_gives_have_their_densities_errors_and_confusions():
    process = DiscreteVP(30, "cosine", pure_noise=True)
    method, n = exact_method(process), 800
    x, _ = MIXTURE.sample(n)
    times = torch.tensor([0.0, 12 / 31, 1.0])
    found = method.likelihood.diagnostics(x, KeyedNoise(0, "diagnostics", range(n), x.shape[1:]), times)
    for column, t in zip(found["noisy_bits"].T, times, strict=True):  # of other noisy images of the same law
        x_t, _ = process.perturb(x, t.expand(n))
        expected = -MIXTURE.log_prob(x_t, *process.scales(t.expand(n), like=x_t)) / (4 * math.log(2))
        assert float(column.mean()) == pytest.approx(float(expected.mean()), abs=4 * float(expected.std()) / n**0.5)
    torch.testing.assert_close(found["noisy_bits"][:, 0], (-method.log_prob(x) / (4 * math.log(2))))
    # As often as it says itself: its probabilities are calibrated.
    t = torch.arange(n) % 32 / process.last
    x_t, _ = process.perturb(x, t)
    sure = method.denoiser.levels(x_t).softmax(1).amax(1).mean()
    assert float(found["level_right"].float().mean()) == pytest.approx(float(sure), abs=0.06)
    with torch.no_grad():
        x_t, eps = process.perturb(x, t)
        mse = (method.denoiser.eps(x_t, t) - eps).square().mean()
    assert float(found["level_mse"].mean()) == pytest.approx(float(mse), abs=0.05)
    confusion = found["confusion"].mean(0)
    assert confusion.shape == (20, 20)
    torch.testing.assert_close(confusion.sum(1), torch.ones(20))
    flat = confusion * level_groups(32).sum(0)[:, None]  # p(true, predicted): symmetric, for the classifier is Bayes'
    torch.testing.assert_close(flat, flat.T, atol=0.06, rtol=0)


def test_groups_of_levels_are_neighbours_and_nearly_alike_in_size():
    groups = level_groups(1002)
    assert groups.shape == (1002, 20)
    assert set(groups.sum(0).tolist()) == {50.0, 51.0}
    assert (groups.argmax(1).diff() >= 0).all()
    assert torch.equal(level_groups(7), torch.eye(7))


# What is refused.


def test_levels_end_in_pure_noise_and_match_the_network():
    with pytest.raises(ValueError, match="pure_noise=True"):
        LevelClassifier(nn.Identity(), DiscreteVP(20))
    with pytest.raises(ValueError, match="pure_noise=True"):
        LevelClassifier(nn.Identity(), VarianceExploding())
    with pytest.raises(ValueError, match="20 steps need a network of 22 levels, got 62"):
        LevelClassifier(ExactLevels(SCHEDULES["linear"]), DiscreteVP(20, pure_noise=True))
    with pytest.raises(ValueError, match="ce_weight and mse_weight"):
        small_method(ce_weight=0.0, mse_weight=0.0)


# A density that is known.


class PixelTrunk(nn.Module):
    """Features of every pixel alone, averaged: the log-density of independent pixels is a sum over them."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, 32, 1)
        nn.init.normal_(first.weight, std=6.0)  # bends within the range of the pixels
        nn.init.uniform_(first.bias, -6.0, 6.0)
        self.net = nn.Sequential(first, nn.SiLU(), nn.Conv2d(32, 32, 1), nn.SiLU(), nn.Conv2d(32, 32, 1), nn.SiLU())

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(x).mean(dim=(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "steps"), [(2.0, 1000), (1.0, 1500)])
def test_training_on_uniform_pixels_finds_their_density(width, steps):
    process = DiscreteVP(50, "cosine", pure_noise=True)
    method = ClassificationDiffusion(LevelNetwork(PixelTrunk(), 52, norms=True), process, ce_weight=1.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps, pct_start=0.05)
    for _ in range(steps):
        x = width * (torch.rand(256, 1, 2, 2) - 0.5)
        optimizer.zero_grad()
        sum(method.losses({"labeled": (x, None)}).values()).backward()
        optimizer.step()
        schedule.step()
    x = width * (torch.rand(4000, 1, 2, 2) - 0.5)
    assert float(method.log_prob(x).mean()) / 4 == pytest.approx(-math.log(width), abs=0.05)
    telescoped = log_mass(diagnostics(method, x, range(4000))["level_balance"])
    assert telescoped == pytest.approx(0, abs=0.3)
