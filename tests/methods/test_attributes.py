"""Many binary attributes: their likelihood, guidance towards them, and joint diffusion that learns them."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from oracles import ExactClassifier, ExactDenoiser, GaussianMixture
from torch import nn

from methods import UNLABELED
from methods.baselines.attribute_classifier import AttributeClassifier
from methods.diffusion.attributes import (
    AttributeGuidance,
    NamedAttribute,
    attribute_accuracy,
    attribute_log_prob,
    attributes_of,
)
from methods.diffusion.feature_guidance import FeatureGuidance
from methods.diffusion.guidance import ClassifierGuidance
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.joint_attributes import JointAttributes
from methods.networks.joint_head import EncoderHead
from methods.networks.unet import UNet

A, SHAPE = 5, (1, 4, 4)


def joint(**kwargs) -> JointAttributes:
    network = UNet(1, width=4, multipliers=(1, 2), blocks=1, attention=(), heads=2)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return JointAttributes(network, DiscreteVP(100, "cosine"), attributes=A, named=3, **kwargs).eval()


def batch(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, *SHAPE), torch.randint(2**A, (n,))


def test_attributes_are_the_bits_of_a_label_up_to_forty_of_them():
    bits = torch.randint(2, (50, 40))
    code = (bits * 2 ** torch.arange(40)).sum(1)
    assert torch.equal(attributes_of(code, 40), bits)


def test_the_likelihood_is_minus_the_summed_cross_entropy_of_what_is_asked():
    logits, attributes = torch.randn(6, A), torch.randint(2, (6, A))
    expected = -F.binary_cross_entropy_with_logits(logits, attributes.float(), reduction="none")
    torch.testing.assert_close(attribute_log_prob(logits, attributes), expected.sum(1))
    attributes[:, 2:] = UNLABELED
    torch.testing.assert_close(attribute_log_prob(logits, attributes), expected[:, :2].sum(1))


def test_accuracy_is_the_mean_over_attributes():
    logits, attributes = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1, 1], [1, 0]])
    assert attribute_accuracy(logits, attributes).item() == 0.5


class Exact(NamedAttribute):
    """Exact posterior of a mixture whose two classes are values of an attribute, beside others that tell nothing."""

    def __init__(self, mixture, process) -> None:
        super().__init__(named=1, count=3)
        self.exact, self.process = ExactClassifier(mixture, process), process

    def attribute_logits(self, x_t, t=None):
        logits = self.exact(x_t, t)
        named = logits[:, 1] - logits[:, 0]
        return torch.stack([torch.zeros_like(named), named, torch.ones_like(named)], dim=1)


@pytest.mark.parametrize("process", [VarianceExploding(0.1, 5.0), DiscreteVP(50)], ids=["ve", "discrete"])
def test_guidance_is_towards_an_attribute_and_that_of_the_class_it_is(process):
    mixture = GaussianMixture(torch.randn(2, 1, 2, 2), torch.tensor([0.2, 0.3]))
    x, y = mixture.sample(16, torch.float64)
    t = process.times_at(torch.full((16,), 0.4, dtype=torch.float64))
    x_t, _ = process.perturb(x, t)
    classifier = Exact(mixture, process)
    guided = AttributeGuidance(ExactDenoiser(mixture, process), classifier)
    alpha, sigma = process.scales(t, like=x)
    expected = mixture.denoise(x_t, alpha, sigma, y)
    torch.testing.assert_close(guided(x_t, t, y), expected, atol=1e-5, rtol=1e-5)
    every = torch.stack([torch.zeros_like(y), y, torch.full_like(y, UNLABELED)], dim=1)
    torch.testing.assert_close(guided(x_t, t, every), expected, atol=1e-5, rtol=1e-5)
    by_class = ClassifierGuidance(ExactDenoiser(mixture, process), classifier)
    torch.testing.assert_close(by_class(x_t, t, y), expected, atol=1e-5, rtol=1e-5)
    away = AttributeGuidance(guided.denoiser, classifier)(x_t, t, 1 - y)
    towards = attribute_log_prob(classifier.attribute_logits(expected, t), every)
    assert (towards > attribute_log_prob(classifier.attribute_logits(away, t), every)).double().mean() > 0.8


def test_guidance_by_several_attributes_adds_their_scores():
    method = joint()
    x_t, t = torch.randn(4, *SHAPE), torch.full((4,), 0.5)
    guided, plain = method.guidance(), method.denoiser(x_t, t).detach()
    asked = torch.randint(2, (4, A))
    alone = [torch.full_like(asked, UNLABELED).index_copy(1, torch.tensor([k]), asked[:, k : k + 1]) for k in range(A)]
    steps = sum(guided(x_t, t, one) - plain for one in alone)
    torch.testing.assert_close(guided(x_t, t, asked) - plain, steps, atol=1e-5, rtol=1e-4)


def test_the_named_attribute_is_the_class():
    method = joint()
    x, _ = batch()
    t = x.new_full((len(x),), method.clean_time)
    logits = method.classifier.attribute_logits(x, t)
    torch.testing.assert_close(method.classify(x).softmax(1)[:, 1], logits[:, 3].sigmoid())
    features = joint(guidance_rule=FeatureGuidance).guidance()
    assert features(x, t, torch.ones(len(x)).long()).shape == x.shape
    with pytest.raises(ValueError, match=r"named must be one of the attributes 0\.\.4, got 5"):
        AttributeClassifier(EncoderHead(method.denoiser.network, A), named=5)


@pytest.mark.parametrize("noisy_weight", [0.3, 0.0], ids=["extended", "base"])
def test_the_terms_of_one_shared_pass_are_those_of_separate_passes(noisy_weight):
    method = joint(clean_weight=0.2, noisy_weight=noisy_weight)
    x, code = batch()
    attributes = attributes_of(code, A).float()
    torch.manual_seed(5)
    t = method.denoiser.process.sample_times(len(x))
    x_t, eps = method.denoiser.process.perturb(x, t)
    torch.manual_seed(5)
    found = method.losses({"labeled": (x, code)})

    def entropy(images, times):
        return F.binary_cross_entropy_with_logits(method.classifier.attribute_logits(images, times), attributes)

    clean = x.new_full((len(x),), method.clean_time)
    expected = {
        "denoise": method.denoiser.matching_loss(x, t, eps).mean(),
        "classify": 0.2 * entropy(x, clean),
    }
    if noisy_weight:
        expected["classify_noisy"] = noisy_weight * entropy(x_t, t)
    torch.testing.assert_close(found, expected)
    step = method.validation_step({"labeled": (x, code)}, 0)
    right = (method.classifier.attribute_logits(x, clean) > 0) == (attributes == 1)
    assert step["accuracy"].item() == pytest.approx(right.double().mean().item())


def test_the_stand_alone_classifier_has_the_mean_cross_entropy():
    network = UNet(1, width=4, multipliers=(1, 2), blocks=1, attention=(), heads=2)
    method = AttributeClassifier(EncoderHead(network, A), named=0).eval()
    x, code = batch()
    each = torch.stack(
        [
            F.cross_entropy(torch.stack([0 * f, f], 1), code >> k & 1)
            for k, f in enumerate(method.classifier.network(x).T)
        ]
    )
    torch.testing.assert_close(method.losses({"labeled": (x, code)})["classify"], each.mean())
    assert method.classify(x).shape == (len(x), 2)
    assert 0 <= method.validation_step({"labeled": (x, code)}, 0)["accuracy"] <= 1


@pytest.mark.parametrize(("names", "task"), [("abcd", "d"), ("abcde", "c")])
def test_data_of_other_attributes_are_refused(names, task):
    method = joint()
    method._trainer = SimpleNamespace(datamodule=SimpleNamespace(attribute_names=names, data_task=task), barebones=True)
    with pytest.raises(ValueError, match=f"attribute 3 of 5 is not {task} of the data's {len(names)}"):
        method.on_train_start()
    method.trainer.datamodule.attribute_names, method.trainer.datamodule.data_task = "abcde", "d"
    method.on_train_start()
