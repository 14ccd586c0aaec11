"""Terms of semi-supervised and positive-unlabeled training, one by one."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactDenoiser, GaussianMixture
from torch import nn

from methods.diffusion.denoiser import EDMDenoiser, Pretrained
from methods.diffusion.guidance import AssistedClassifier, NoisyClassifier
from methods.diffusion.process import ContinuousVP, DiscreteVP, VarianceExploding
from methods.networks.unet import UNet
from methods.networks.wrn import WideResNet
from methods.temporal_consistency import TemporalConsistency, later_times, prior_loss, pseudo_label_loss

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.8)
PROCESSES = {"ve": VarianceExploding(0.01, 50.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
CLASSIFIERS = {"noisy": NoisyClassifier, "assisted": AssistedClassifier}
every_classifier = pytest.mark.parametrize("kind", CLASSIFIERS)


class Recorder(nn.Module):
    """A small network that keeps what it was asked and what it answered."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, classes)
        self.log_sigmas, self.answers = [], []

    def features(self, x, log_sigma: torch.Tensor) -> torch.Tensor:
        x = x if isinstance(x, torch.Tensor) else sum(x)
        out = torch.tanh(self.hidden(torch.cat([x.flatten(1), log_sigma[:, None]], dim=1)))
        self.log_sigmas.append(log_sigma)
        self.answers.append(out)
        return out

    def forward(self, x, log_sigma: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x, log_sigma))


def method_of(process=PROCESSES["ve"], kind: str = "noisy", network: nn.Module | None = None, **kwargs):
    classifier = partial(CLASSIFIERS[kind], network=network or Recorder())
    return TemporalConsistency(ExactDenoiser(MIXTURE, process), classifier, **kwargs)


def batch(labeled: int = 8, unlabeled: int = 24):
    return {"labeled": MIXTURE.sample(labeled), "unlabeled": MIXTURE.sample(unlabeled)[0]}


def seeded(method: TemporalConsistency, images) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return method.losses(images)


@pytest.mark.parametrize(("t", "longest"), [(0.0, 0.2815), (0.25, 0.0920), (0.5, 0.01553), (0.75, 0.001958)])
def test_the_longest_step_has_the_values_of_the_paper_s_process(t, longest):
    t = torch.tensor([t], dtype=torch.float64)
    later = later_times(PROCESSES["ve"], t, 0.1, torch.ones_like(t))
    assert (later - t).item() == pytest.approx(longest, rel=1e-3)


def test_the_longest_step_adds_just_the_allowed_noise_and_ends_with_the_process():
    process = PROCESSES["ve"]
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    later = later_times(process, t, 0.1, torch.ones_like(t))
    torch.testing.assert_close(process.sigma(later[:-1]) - process.sigma(t[:-1]), torch.full((100,), 0.1).double())
    assert later[-1] == 1
    closed = torch.log1p(0.1 / process.sigma(t[:-1])) / math.log(50 / 0.01)
    torch.testing.assert_close(later[:-1] - t[:-1], closed)
    halfway = later_times(process, t[:-1], 0.1, torch.full_like(t[:-1], 0.5))
    torch.testing.assert_close(halfway - t[:-1], closed / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_signal_decay_the_noise_grows_by_less_than_is_allowed(dtype):
    process = PROCESSES["vp"]
    t = process.times_at(torch.linspace(0, 1, 101, dtype=dtype))
    later = later_times(process, t, 0.1, torch.ones_like(t))
    growth = process.sigma(later) - process.sigma(t)
    assert (growth <= 0.1 + 1e-6).all()
    assert growth.max() > 0.09
    assert (later >= t).all()
    assert later.max() <= process.t_max


def test_a_discrete_process_steps_to_its_levels():
    process = PROCESSES["discrete"]
    t = process.times_at(torch.linspace(0, 0.999, 100))
    later = later_times(process, t, 0.1, torch.ones_like(t))
    torch.testing.assert_close(process.index(later) / process.last, later)
    assert (later >= t).all()
    assert (later > t).any()
    assert later.max() <= process.t_max


def test_the_prior_loss_is_least_and_equal_to_the_entropy_where_the_mean_prediction_is_the_prior():
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    logits = torch.log(prior).repeat(7, 1).requires_grad_()
    loss = prior_loss(logits, prior)
    torch.testing.assert_close(loss, -(prior * prior.log()).sum())
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-12
    assert prior_loss(logits + torch.randn(3), prior) > loss


def test_the_prior_loss_averages_probabilities_before_it_takes_the_logarithm():
    """A sure and balanced batch meets an even prior; the mean of log-probabilities would punish it by 100 nats."""
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    assert prior_loss(logits, torch.tensor([0.5, 0.5])).item() == pytest.approx(math.log(2))


def test_pseudo_labels_are_counted_where_sure_and_averaged_over_all_images():
    probabilities = torch.tensor([[0.94, 0.06], [0.04, 0.96], [0.99, 0.01], [0.5, 0.5]])
    guide = probabilities.log().requires_grad_()
    logits = torch.randn(4, 2, requires_grad=True)
    loss = pseudo_label_loss(logits, guide, confidence=0.95)
    sure = F.cross_entropy(logits[1:3], torch.tensor([1, 0]), reduction="sum")
    torch.testing.assert_close(loss, sure / 4)
    loss.backward()
    assert guide.grad is None
    assert logits.grad.abs().sum(1).bool().tolist() == [False, True, True, False]


@every_process
@every_classifier
def test_without_unlabeled_images_the_loss_is_the_supervised_one(process, kind):
    method, images = method_of(process, kind, prior_weight=1.0), batch()
    found = seeded(method, {"labeled": images["labeled"]})
    assert set(found) == {"classify", "classify_tau"}
    torch.manual_seed(3)
    x, y = images["labeled"]
    t = process.sample_times(len(x))
    torch.testing.assert_close(
        found["classify"], F.cross_entropy(method.classifier(process.perturb(x, t)[0], t), y), atol=1e-5, rtol=1e-5
    )
    tau = torch.full((len(x),), max(0.01, process.t_min))
    torch.testing.assert_close(
        found["classify_tau"],
        F.cross_entropy(method.classifier(process.perturb(x, tau)[0], tau), y),
        atol=1e-5,
        rtol=1e-5,
    )


@every_process
@every_classifier
def test_every_term_is_finite_and_the_supervised_ones_do_not_change(process, kind):
    method, images = method_of(process, kind), batch()
    found = seeded(method, images)
    assert set(found) == {"classify", "classify_tau", "pseudo_label", "consistency"}
    assert all(term.isfinite() for term in found.values())
    alone = seeded(method, {"labeled": images["labeled"]})
    assert {name: found[name] for name in alone} == alone


@every_classifier
def test_pseudo_labels_are_read_at_tau_and_used_at_the_first_of_the_two_times(kind):
    process, network = PROCESSES["ve"], Recorder()
    method = method_of(process, kind, network, tau=0.1, confidence=0.0)
    found = seeded(method, batch(8, 24))
    labeled, labeled_tau, tau, first, second = network.log_sigmas
    assert [len(v) for v in network.log_sigmas] == [8, 8, 24, 24, 24]
    for at_tau in (labeled_tau, tau):
        torch.testing.assert_close(at_tau, process.log_sigma(torch.full_like(at_tau, 0.1)))
    assert labeled.std() > 1
    assert first.std() > 1
    growth = second.exp() - first.exp()
    assert (growth >= -1e-3).all()
    assert (growth <= 0.2 + 1e-3).all()
    logits, guide = network.head(network.answers[3]), network.head(network.answers[2])
    torch.testing.assert_close(found["pseudo_label"], F.cross_entropy(logits, guide.argmax(1)))
    torch.testing.assert_close(found["consistency"], F.mse_loss(network.answers[3], network.answers[4]))
    if kind == "assisted":
        assert method.denoiser.calls == 5  # one for each noisy image: labels and features at a time share it


@pytest.mark.parametrize(("reduction", "squared"), [("mean", True), ("sum", True), ("mean", False), ("sum", False)])
def test_the_distance_of_features_is_of_the_kind_asked_for_and_their_variance_is_shown(reduction, squared):
    network = Recorder()
    method = method_of(network=network, reduction=reduction, squared=squared)
    torch.manual_seed(3)
    found = method.training_step(batch(8, 24), 0)
    difference = network.answers[3] - network.answers[4]
    rows = getattr(difference.square(), reduction)(1)
    torch.testing.assert_close(found["consistency"], (rows if squared else rows.sqrt()).mean().detach())
    torch.testing.assert_close(found["feature_variance"], network.answers[3].var(0).mean().detach())
    terms = ("classify", "classify_tau", "pseudo_label", "consistency")
    torch.testing.assert_close(found["loss"].detach(), sum(found[term] for term in terms))


def test_the_root_of_a_distance_of_zero_has_a_gradient():
    features = torch.ones(2, 3, requires_grad=True)
    method_of(squared=False)._distance(features, features.detach()).sum().backward()
    assert features.grad.isfinite().all()


@every_process
@every_classifier
def test_the_same_time_and_noise_give_the_same_features(process, kind):
    images = batch()
    same = seeded(method_of(process, kind, max_step=0.0, shared_noise=True), images)
    other_noise = seeded(method_of(process, kind, max_step=0.0), images)
    later = seeded(method_of(process, kind, max_step=1.0, shared_noise=True), images)
    assert same["consistency"] < 1e-8
    assert other_noise["consistency"] > 1e-4
    assert later["consistency"] > 1e-8


def test_both_times_of_an_image_are_pulled_to_each_other():
    network = Recorder()
    terms = method_of(network=network).losses(batch())
    first, second = network.answers[3:]
    pulls = torch.autograd.grad(terms["consistency"], [first, second])
    assert pulls[0].abs().max() > 0
    torch.testing.assert_close(pulls[0], -pulls[1])


def test_weights_scale_their_own_terms_and_the_ramp_all_that_need_no_labels(monkeypatch):
    network, images = Recorder(), batch()
    plain = seeded(method_of(network=network, confidence=0.0), images)
    weighted = seeded(
        method_of(network=network, confidence=0.0, pseudo_weight=2.0, consistency_weight=3.0, ramp=4), images
    )
    factors = {"classify": 1, "classify_tau": 1, "pseudo_label": 2 / 4, "consistency": 3 / 4}
    for name, factor in factors.items():
        torch.testing.assert_close(weighted[name], factor * plain[name])
    monkeypatch.setattr(TemporalConsistency, "global_step", 3)
    assert seeded(method_of(network=network, confidence=0.0, ramp=4), images) == plain


@every_classifier
def test_positive_and_unlabeled_training_knows_the_prior_of_the_data(kind):
    method = method_of(kind=kind, network=Recorder(2), prior_weight=0.5)
    method.trainer = SimpleNamespace(datamodule=SimpleNamespace(class_prior=torch.tensor([0.7, 0.3])), global_step=0)
    method.on_fit_start()
    images = batch()
    images["labeled"] = (images["labeled"][0], torch.ones(8, dtype=torch.long))
    found = seeded(method, images)
    network = method.classifier.network
    logits = network.head(network.answers[2])
    torch.testing.assert_close(found["prior"], 0.5 * prior_loss(logits, torch.tensor([0.7, 0.3])))
    (gradient,) = torch.autograd.grad(found["prior"], network.head.bias)
    assert gradient.abs().max() > 0


def test_without_a_prior_loss_nothing_is_asked_of_the_data():
    method = method_of()
    method.trainer = SimpleNamespace()
    method.on_fit_start()
    assert method.class_prior is None


@every_process
def test_clean_images_are_read_where_the_paper_reads_them_and_not_below_the_least_noise(process):
    method = method_of(process)
    x, _ = MIXTURE.sample(4)
    t = torch.full((4,), max(0.001, process.t_min))
    torch.testing.assert_close(method.classify(x), method.classifier(x, t))


def test_no_term_builds_a_graph_through_the_denoiser(tmp_path):
    process = PROCESSES["ve"]
    denoiser = EDMDenoiser(UNet(1, width=8, multipliers=(1, 2), blocks=1, attention=()), process)
    weights = {f"denoiser.{name}": value for name, value in denoiser.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "final.ckpt")
    trained = Pretrained(denoiser, str(tmp_path / "final.ckpt"))
    estimates = []
    trained.register_forward_hook(lambda module, args, output: estimates.append(output.requires_grad))
    network = WideResNet(1, 2, depth=10, width=1, inputs=2)
    method = TemporalConsistency(trained, partial(AssistedClassifier, network=network), prior_weight=1.0)
    method.class_prior = torch.tensor([0.5, 0.5])
    x = torch.randn(4, 1, 8, 8)
    torch.stack(list(method.losses({"labeled": (x, torch.ones(4).long()), "unlabeled": x}).values())).sum().backward()
    assert estimates == [False] * 5
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert not any(p.grad is not None for p in denoiser.parameters())
