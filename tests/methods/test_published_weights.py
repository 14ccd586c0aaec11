"""Methods start from published weights when a trainer begins, and not before."""

import pytest
import torch
from networks.published_nets import UNET, Guided, Weights, ddpm, ncsnpp

from methods.classification_diffusion import ClassificationDiffusion
from methods.denoising_assisted import DenoisingAssisted
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.process import DiscreteVP, UniformTimes, VarianceExploding
from methods.joint_diffusion import JointDiffusion
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.level_network import LevelNetwork, UNetTrunk
from methods.networks.ncsnpp import NCSNpp
from methods.networks.steps import GuidedStepEmbedding
from methods.networks.unet import UNet
from methods.noisy_classifier import NoisyClassifierGuidance
from methods.score_model import ScoreModel

X = torch.zeros(1, 1, 8, 8)
TOLD = dict(**UNET, attention=(2,), noise=GuidedStepEmbedding)


def score_sde() -> Weights:
    weights = Weights()
    ncsnpp(weights, X, torch.ones(1), 8, (1, 2), 1, (4,))
    return weights


def guided(residual: bool, heads: int | None) -> Guided:
    net = Guided(Weights(), 1, (4,), heads, residual)
    net.tell(torch.zeros(1))
    return net


def classifier() -> Weights:
    net = guided(residual=True, heads=None)
    net.pool(net.encode(X, (1, 2))[0], classes=5)
    return net.w


def joint() -> Weights:
    net = guided(residual=False, heads=4)
    middle, skips = net.encode(X, (1, 2))
    net.decode(middle, skips, (1, 2), out=1)
    net.classify(middle, skips, torch.zeros(1), classes=5)
    return net.w


def cdm() -> Weights:
    weights = Weights()
    features = ddpm(weights, X, None, 64, **UNET, sides=(4,)).mean(dim=(2, 3))
    weights.linear("linear_layer", features, 12)
    return weights


def score_network() -> EpsDenoiser:
    return EpsDenoiser(NCSNpp(1, width=8, multipliers=(1, 2), blocks=1), VarianceExploding())


def encoder(inputs: int = 1) -> EncoderClassifier:
    return EncoderClassifier(1, 5, 8, **TOLD, inputs=inputs)


METHODS = {
    "score model": (score_sde, lambda **kw: ScoreModel(score_network(), UniformTimes(), **kw), "denoiser"),
    "noisy": (classifier, lambda **kw: NoisyClassifierGuidance(score_network(), encoder(), **kw), "classifier.network"),
    "assisted": (classifier, lambda **kw: DenoisingAssisted(score_network(), encoder(2), **kw), "classifier.network"),
    "joint": (joint, lambda **kw: JointDiffusion(UNet(1, **TOLD), DiscreteVP(1000), 5, **kw), "classifier"),
    "cdm": (
        cdm,
        lambda **kw: ClassificationDiffusion(
            LevelNetwork(UNetTrunk(1, 64, **UNET), 12), DiscreteVP(10, pure_noise=True), **kw
        ),
        "denoiser",
    ),
}


@pytest.mark.parametrize(("published", "build", "part"), METHODS.values(), ids=METHODS)
def test_a_method_starts_from_published_weights(published, build, part, tmp_path):
    with torch.no_grad():
        torch.save(dict(published()), tmp_path / "published.pt")
    method = build(checkpoint=str(tmp_path / "published.pt"))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert before.keys() == build().state_dict().keys()
    method.setup("fit")
    assert method.start is None
    kept = {name for name, value in method.state_dict().items() if torch.equal(value, before[name])}
    own = {name for name in before if name.startswith(f"{part}.") and ".convs.1." not in name}
    assert own
    assert not own & kept

    (tmp_path / "published.pt").unlink()
    method.setup("test")  # read once


@pytest.mark.parametrize(("published", "build", "part"), METHODS.values(), ids=METHODS)
def test_a_method_without_published_weights_has_nothing_to_start(published, build, part):
    assert build().start is None
