"""Published weights in our networks: every name is found, and the answers are those of the published network."""

import re

import pytest
import torch
from published_nets import (
    SCORE_SDE,
    STEP,
    UNET,
    Weights,
    ddpm,
    guided,
    guided_classifier,
    images,
    joint,
    ncsnpp,
    pytorch_diffusion,
    score_sde,
)
from torch.testing import assert_close

from methods import UNLABELED
from methods.diffusion.process import DiscreteVP
from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.joint_head import JointHead
from methods.networks.level_network import LevelNetwork, UNetTrunk
from methods.networks.ncsnpp import NCSNpp
from methods.networks.published.ddpm import from_cdm, from_pytorch_diffusion
from methods.networks.published.guided import (
    from_guided_classifier,
    from_guided_diffusion,
    from_joint_diffusion,
)
from methods.networks.published.ncsnpp import from_score_sde
from methods.networks.published.reader import Reader
from methods.networks.steps import GuidedStepEmbedding
from methods.networks.unet import UNet, pool

pytestmark = pytest.mark.usefixtures("no_gradients")
CLOSE = dict(atol=1e-4, rtol=1e-4)


@pytest.fixture
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def log_sigma() -> torch.Tensor:
    return DiscreteVP(1000).log_sigma((STEP + 1) / 1000)


@pytest.mark.parametrize("shape", [dict(blocks=1, multipliers=(1,)), dict(blocks=1, multipliers=(1, 2)), SCORE_SDE])
def test_ncsnpp_answers_as_published_with_the_sign_of_noise(shape):
    shape = {"width": 16, **shape}
    side, attention = 4 * 2 ** (len(shape["multipliers"]) - 1), [2 ** (len(shape["multipliers"]) - 1)]
    weights, x, sigma = Weights(sigmas=torch.ones(9)), images(side), torch.tensor([0.01, 0.7, 50.0])
    score = ncsnpp(weights, (x + 1) / 2, sigma, **shape, sides=(4,))
    ours = NCSNpp(3, **shape, attention=attention).eval()
    ours.load_state_dict(from_score_sde(weights))
    assert_close(ours(x, torch.log(2 * sigma)), -score * sigma[:, None, None, None], **CLOSE)


@pytest.mark.parametrize("blocks", [4, 8], ids=["continuous", "deep"])
def test_ncsnpp_of_the_published_shapes_loads(blocks):
    with torch.device("meta"):
        ours = NCSNpp(3, blocks=blocks)
        weights = Weights()
        ncsnpp(weights, torch.empty(1, 3, 32, 32), torch.ones(1), 128, (1, 2, 2, 2), blocks, (16,))
    found = from_score_sde(weights)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in ours.state_dict().items()}


def test_averages_take_the_place_of_parameters_in_their_order():
    weights, other = score_sde(), score_sde()
    trained = [value for name, value in other.items() if name not in ("sigmas", "all_modules.0.W")]
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    found = from_score_sde(wrapped, trained)
    expected = from_score_sde({**other, "all_modules.0.W": weights["all_modules.0.W"]})
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match=r"^all_modules\.\d+\.bias has no average"):
        from_score_sde(wrapped, trained[:-1])
    with pytest.raises(ValueError, match=r"^all_modules\.1\.weight has shape"):
        from_score_sde(wrapped, [torch.zeros(1), *trained[1:]])
    with pytest.raises(ValueError, match=r"^all_modules\.\d+\.bias is the last"):
        from_score_sde(wrapped, [*trained, trained[-1]])


TOLD = dict(**UNET, noise=GuidedStepEmbedding)


def test_ddpm_answers_as_published():
    weights, x, theirs = pytorch_diffusion()
    ours = DDPMUNet(3, **UNET).eval()
    ours.load_state_dict(from_pytorch_diffusion(weights))
    assert_close(ours(x, log_sigma()), theirs, **CLOSE)


def test_ddpm_of_the_published_shape_loads():
    with torch.device("meta"):
        ours, weights = DDPMUNet(3), Weights()
        ddpm(weights, torch.empty(1, 3, 32, 32), torch.empty(1, 128), 3, (1, 2, 2, 2), 2, (16,))
    found = from_pytorch_diffusion(weights)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in ours.state_dict().items()}


@pytest.mark.parametrize("classes", [None, 4])
def test_classification_diffusion_answers_as_published(classes):
    weights, x, y, emb = Weights(), images(), None, None
    if classes:
        y, emb = torch.tensor([2, 0, UNLABELED]), weights.get_or_draw("label_emb.weight", classes + 1, 128)[[2, 0, 4]]
    features = ddpm(weights, x, emb, 256, **UNET, sides=(4,)).mean(dim=(2, 3))
    theirs = weights.linear("linear_layer", features, 12).cumsum(1)
    ours = LevelNetwork(UNetTrunk(3, 256, **UNET, classes=classes), 12).eval()
    ours.load_state_dict(from_cdm(weights))
    assert_close(ours(x, y), theirs, **CLOSE)


@pytest.mark.parametrize(
    ("resampling", "sides", "attention"),
    [("conv", (4,), [2]), ("residual", (4,), [2]), ("residual", (), []), ("conv", (4, 8), [1, 2])],
)
def test_guided_diffusion_answers_as_published(resampling, sides, attention):
    net, x, y = guided(resampling, sides), images(), torch.tensor([1, 0, 2])
    net.tell(STEP, y, classes=3)
    theirs = net.decode(*net.encode(x, (1, 2)), (1, 2), out=6)
    ours = UNet(3, **TOLD, attention=attention, classes=3, out_channels=6, resampling=resampling).eval()
    ours.load_state_dict(from_guided_diffusion(net.w))
    assert_close(ours(x, log_sigma(), y), theirs, **CLOSE)
    assert not ours.label.weight[-1].any()


def test_joint_diffusion_answers_as_published():
    net, x, eps, logits = joint()
    ours = UNet(3, **TOLD, attention=(2,)).eval()
    head = JointHead(ours.pooled_channels, 5).eval()
    unet_state, head_state = from_joint_diffusion({**net.w, "augmentation.ColorJitter_0.p": torch.ones(1)})
    ours.load_state_dict(unet_state)
    head.load_state_dict(head_state)
    clean = torch.full((3,), -12.0)
    skips, middle, emb = ours.encode(x, clean)
    assert_close(ours.decode(skips, middle, emb), eps, **CLOSE)
    assert_close(head(pool(skips, middle), torch.zeros(3)), logits, **CLOSE)


@pytest.mark.parametrize("resampling", ["conv", "residual"])
def test_the_guided_classifier_answers_as_published(resampling):
    net, x, theirs = guided_classifier(resampling)
    ours = EncoderClassifier(3, 7, 8, **TOLD, attention=(2,), resampling=resampling).eval()
    ours.load_state_dict(from_guided_classifier(net.w, blocks=1))
    assert_close(ours(x, log_sigma()), theirs, **CLOSE)


def test_a_network_that_is_told_steps_has_as_many_weights():
    with torch.device("meta"):
        told, net = UNet(3, **TOLD, attention=(2,)), UNet(3, **UNET, attention=(2,))
    expected = {name: value.shape for name, value in net.state_dict().items()}
    assert {name: value.shape for name, value in told.state_dict().items()} == expected


FORMATS = {
    "score-sde": (from_score_sde, score_sde),
    "pytorch-diffusion": (from_pytorch_diffusion, lambda: pytorch_diffusion()[0]),
    "joint-diffusion": (from_joint_diffusion, lambda: joint()[0].w),
    "guided-classifier": (lambda state: from_guided_classifier(state, blocks=1), lambda: guided_classifier()[0].w),
}


@pytest.mark.parametrize(("convert", "published"), FORMATS.values(), ids=FORMATS)
def test_unknown_and_missing_weights_are_named_in_one_line(convert, published):
    weights = dict(published())
    with pytest.raises(ValueError, match=r"^other\.weight is no weight of .*$"):
        convert({**weights, "other.weight": torch.zeros(1)})
    for name in list(weights):
        if name != "sigmas":
            with pytest.raises(ValueError, match=rf"^{re.escape(name)} is missing from the weights of .*$"):
                convert({key: value for key, value in weights.items() if key != name})


def test_weights_of_another_network_are_refused():
    states = {name: published() for name, (_, published) in FORMATS.items()}
    for name, (convert, _) in FORMATS.items():
        for other in states.keys() - {name}:
            with pytest.raises(ValueError, match=r"^.* (missing from the weights|no weight) of .*$"):
                convert(states[other])
    with pytest.raises(ValueError, match=r"^clasifier\.bn_1\.weight is no weight of the UNet of guided diffusion$"):
        from_guided_diffusion(states["joint-diffusion"])
    with pytest.raises(ValueError, match="missing from the weights of the UNet of guided diffusion"):
        from_guided_diffusion(states["guided-classifier"])


def test_norms_of_other_groups_are_refused():
    reader = Reader({"norm.weight": torch.ones(64), "norm.bias": torch.ones(64)}, "a small network")
    with pytest.raises(ValueError, match=r"^norm\.weight has 64 channels in 32 groups, where our norms have 16$"):
        reader.norm("norm", "norm")
