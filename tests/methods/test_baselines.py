"""What the papers compare with, held against closed forms and the other methods."""

from types import SimpleNamespace

import pytest
import torch
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods import UNLABELED
from methods.baselines.conditional_score import ConditionalScoreModel
from methods.baselines.frozen_features import FrozenFeatures
from methods.baselines.gaussian import GaussianGuidance, Gaussians
from methods.baselines.likelihood_score import LikelihoodScoreMatching
from methods.baselines.positive_unlabeled import UnbiasedRisk
from methods.diffusion.denoiser import EpsDenoiser, Pretrained
from methods.diffusion.process import ContinuousVP, DiscreteVP, UniformTimes, VarianceExploding
from methods.joint_diffusion import JointDiffusion
from methods.networks.mlp import perceptron
from methods.networks.unet import UNet

MIXTURE = GaussianMixture.example((1, 2, 2), spread=0.8)
PROCESSES = {"ve": VarianceExploding(0.1, 5.0), "vp": ContinuousVP(), "discrete": DiscreteVP(100)}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def seeded(method, batch):
    torch.manual_seed(3)
    return method.losses(batch)


class Perturbed(nn.Module):
    """The exact logits plus ``weight_y tanh(x_0)`` on each."""

    def __init__(self, process, weight: float) -> None:
        super().__init__()
        self.exact, self.process = ExactClassifier(MIXTURE, process), process
        self.weight = nn.Parameter(weight * torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.exact(x_t, t) + self.weight * x_t.flatten(1)[:, :1].tanh()


def likelihood_score(process, weight: float = 0.0, **kwargs) -> LikelihoodScoreMatching:
    method = LikelihoodScoreMatching(ExactDenoiser(MIXTURE, process), nn.Identity(), **kwargs)
    method.classifier = Perturbed(process, weight)
    return method


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
@every_process
def test_at_the_exact_likelihood_score_its_matching_is_that_of_the_class_conditional_score(process, exponent):
    x, y = MIXTURE.sample(64, torch.float64)
    found = seeded(likelihood_score(process, exponent=exponent), {"labeled": (x, y)})["likelihood_score"]
    torch.manual_seed(3)
    t = process.sample_times(len(x))
    x_t, eps = process.perturb(x, t)
    alpha, sigma = process.scales(t, like=x)
    residual = sigma**exponent * (MIXTURE.score(x_t, alpha, sigma, y) + eps / sigma)
    torch.testing.assert_close(found, 0.5 * residual.square().mean())


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_the_gradient_of_likelihood_score_matching_vanishes_at_the_exact_posterior_and_nowhere_near(name):
    def score_of_the_gradient(weight: float) -> torch.Tensor:
        """Mean gradient over its standard error, for each parameter."""
        method, gradients = likelihood_score(PROCESSES[name], weight, exponent=1.0), []
        for _ in range(40):
            loss = method.losses({"labeled": MIXTURE.sample(250, torch.float64)})["likelihood_score"]
            gradients.append(torch.autograd.grad(loss, method.classifier.weight)[0])
        gradients = torch.stack(gradients)
        return gradients.mean(0) / (gradients.std(0) / len(gradients) ** 0.5)

    assert score_of_the_gradient(0.0).abs().max() < 4
    assert score_of_the_gradient(1.0).abs().max() > 10


class Told(ExactDenoiser):
    """The exact denoiser as if by a network that is told classes; keeps what it was told."""

    def __init__(self, process) -> None:
        super().__init__(MIXTURE, process)
        self.network, self.told = nn.Module(), []
        self.network.classes = 3

    def matching_loss(self, x, t, eps, y=None):
        self.told.append(y)
        return super().matching_loss(x, t, eps)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_conditional_score_model_is_told_some_labels_and_none_of_unlabeled_images(dropout):
    method = ConditionalScoreModel(Told(PROCESSES["vp"]), UniformTimes(), label_dropout=dropout)
    (x, y), (u, _) = MIXTURE.sample(4000), MIXTURE.sample(10)
    seeded(method.train(), {"labeled": (x, y), "unlabeled": u})
    seeded(method.eval(), {"labeled": (x, y)})
    trained, validated = method.denoiser.told
    assert (trained[len(y) :] == UNLABELED).all()
    kept = trained[: len(y)] != UNLABELED
    assert torch.equal(trained[: len(y)][kept], y[kept])
    assert kept.double().mean().item() == pytest.approx(1 - dropout, abs=4 * (dropout * (1 - dropout) / len(y)) ** 0.5)
    assert torch.equal(validated, y)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_classifier_free_guidance_goes_on_from_the_unconditional_denoiser_through_the_conditional_one(scale):
    process = PROCESSES["ve"]
    method = ConditionalScoreModel(Told(process), UniformTimes(), guidance_scale=scale)
    x, y = MIXTURE.sample(16, torch.float64)
    t = torch.full((16,), 0.5, dtype=torch.float64)
    with_class, without = (MIXTURE.denoise(x, *process.scales(t, like=x), told) for told in (y, None))
    torch.testing.assert_close(method.guidance()(x, t, y), without + scale * (with_class - without))


def test_a_network_without_classes_makes_no_conditional_model():
    denoiser = EpsDenoiser(UNet(1, width=8, multipliers=[1], blocks=1, attention=[]), PROCESSES["ve"])
    with pytest.raises(ValueError, match="needs a network that is told classes"):
        ConditionalScoreModel(denoiser, UniformTimes())


@pytest.mark.parametrize(("dropout", "reason"), [(0.0, "trained with classes alone"), (0.1, None)])
def test_without_a_class_a_model_that_never_lacked_one_is_not_judged(dropout, reason):
    method = ConditionalScoreModel(Told(PROCESSES["vp"]), UniformTimes(), label_dropout=dropout)
    method.denoiser.register_buffer("weight", torch.zeros(1))
    assert method.unsupported.get("denoise") == reason


class Flattened(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), perceptron(4, 8, 2))


def risk_of(images: torch.Tensor, share: float, **kwargs) -> tuple[UnbiasedRisk, dict]:
    """The method, and a batch of ``images`` as positives with as many of them, and negatives, in the unlabeled half."""
    method = UnbiasedRisk(Flattened().double(), **kwargs).train()
    method.class_prior = torch.tensor([1 - share, share], dtype=torch.float64)
    negatives = round(len(images) * (1 - share) / share)
    return method, {"labeled": (images, torch.ones(len(images))), "negatives": torch.randn(negatives, 1, 2, 2).double()}


def test_the_share_of_positives_is_that_of_the_unlabeled_pool():
    method = UnbiasedRisk(Flattened())
    method.trainer = SimpleNamespace(datamodule=SimpleNamespace(class_prior=torch.tensor([0.8, 0.2])))
    method.on_fit_start()
    assert method.class_prior.tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_unbiased_risk_is_that_of_all_labels_where_the_positives_are_those_of_the_pool(share):
    torch.manual_seed(0)
    method, batch = risk_of(1 + torch.randn(30, 1, 2, 2).double(), share, beta=None)
    positives, negatives = batch["labeled"][0], batch.pop("negatives")
    found = method.losses({**batch, "unlabeled": torch.cat([negatives, positives])})["risk"]
    images = torch.cat([positives, negatives])
    labels = torch.cat([torch.ones(len(positives)), torch.zeros(len(negatives))]).long()
    wrong = method.classify(images).softmax(1).gather(1, 1 - labels[:, None])  # the sigmoid loss of a difference
    torch.testing.assert_close(found, wrong.mean())
    torch.testing.assert_close(method.losses({"labeled": (images, labels)})["risk"], found)


@pytest.mark.parametrize(("far", "beta", "climbs"), [(0.0, 0.0, False), (9.0, 0.0, True), (9.0, 10.0, False)])
def test_the_non_negative_risk_climbs_only_where_what_is_left_of_the_pool_is_below_its_tolerance(far, beta, climbs):
    """Unlabeled images all on the side of the positives, or far on the other: then what is left of them is negative."""
    torch.manual_seed(0)
    method, batch = risk_of(torch.ones(8, 1, 2, 2).double(), 0.5, beta=beta)
    plain = UnbiasedRisk(method.classifier.network, beta=None)
    plain.class_prior = method.class_prior
    network = method.classifier.network
    with torch.no_grad():  # logits 0 and the sum of pixels
        network[1] = nn.Linear(4, 2).double()
        network[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4])), network[1].bias.zero_()
    batch = {"labeled": batch["labeled"], "unlabeled": torch.full((8, 1, 2, 2), 1 - far).double()}
    risk, unbiased = method.losses(batch)["risk"], plain.losses(batch)["risk"]
    right = torch.sigmoid(torch.tensor(4.0, dtype=torch.float64))
    left = (torch.sigmoid(torch.tensor(4 - 4 * far, dtype=torch.float64)) - 0.5 * right).item()
    assert (left < -beta) == climbs
    expected = -left if climbs else left + 0.5 * (1 - right.item())
    assert risk.item() == pytest.approx(expected)
    assert unbiased.item() == pytest.approx(left + 0.5 * (1 - right.item()))


def test_frozen_features_are_those_of_joint_diffusion_and_nothing_but_their_head_is_trained(tmp_path):
    def network() -> UNet:
        return UNet(1, width=8, multipliers=[1, 2], blocks=1, attention=[], dropout=0.3)

    process = DiscreteVP(50)
    joint = JointDiffusion(network(), process, 3)
    for weight in joint.denoiser.parameters():  # with zeros of a fresh one, nothing would depend on time or dropout
        nn.init.normal_(weight, std=0.1)
    path = tmp_path / "final.ckpt"
    torch.save({"state_dict": joint.state_dict()}, path)
    method = FrozenFeatures(Pretrained(EpsDenoiser(network(), process), str(path)), 3).train()
    x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    clean = torch.full((6,), 1 / 50)  # the first noise level
    expected = joint.eval().classifier.features(x, clean)
    torch.testing.assert_close(method.classifier.features(x, clean), expected)
    assert not torch.allclose(joint.train().classifier.features(x, clean), expected, rtol=0.01)
    read = method.classifier.head.norm_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    seen: list[torch.Tensor] = []
    method.eval().classify(x)
    read.remove()
    torch.testing.assert_close(seen[0], torch.cat([expected, clean[:, None]], dim=1))
    method.train()
    sum(method.losses({"labeled": (x, y)}).values()).backward()
    assert {name.split(".")[0] for name in method.classifier.state_dict()} == {"head"}
    assert all(p.grad is not None for p in method.parameters())
    assert not any(p.requires_grad for p in method.classifier.denoiser.held.parameters())
    assert method.noisy_process is None


def test_a_denoiser_guided_by_gaussians_is_theirs_of_the_class_where_it_is_their_own_and_stays_as_it_is():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.arange(400) % 2
    x = torch.where(y[:, None, None, None] == 1, 0.5 * x + 1, x)
    process = VarianceExploding()
    fitted = Gaussians([1, 2, 2], 2, process)
    fitted.training_step({"labeled": (x, y)}, 0)
    fitted.on_train_epoch_end()
    frozen = fitted.denoiser
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    method = GaussianGuidance(frozen, [1, 2, 2], 2)
    method.training_step({"labeled": (x, y)}, 0)
    method.on_train_epoch_end()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    t = process.times_at(torch.linspace(0.1, 0.9, 8))
    x_t, _ = process.perturb(x[:8].float(), t, torch.randn(8, 1, 2, 2, generator=generator))
    guided = method.guidance()(x_t, t, y[:8])
    torch.testing.assert_close(guided, frozen(x_t, t, y[:8]).to(guided.dtype), rtol=1e-3, atol=1e-3)
