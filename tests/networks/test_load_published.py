"""Files as they are published: found, read, recognised, and loaded into the network that they belong to, or refused."""

import json
import re
import warnings
from hashlib import sha256

import pytest
import torch
from diffusers import UNet2DModel
from published_nets import (
    SCORE_SDE,
    STEP,
    UNET,
    Guided,
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
from safetensors.torch import save_file
from torch.testing import assert_close

from methods.diffusion.process import DiscreteVP
from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.joint_head import JointHead
from methods.networks.level_network import LevelNetwork, UNetTrunk
from methods.networks.ncsnpp import NCSNpp
from methods.networks.published import known
from methods.networks.published.guided import from_guided_classifier, from_guided_diffusion
from methods.networks.published.known import KNOWN, Published
from methods.networks.published.load import JointNetwork, load_published, starting_from
from methods.networks.steps import GuidedStepEmbedding
from methods.networks.unet import UNet, pool

CLOSE = dict(atol=1e-4, rtol=1e-4)
TOLD = dict(**UNET, attention=(2,), noise=GuidedStepEmbedding)
LOG_SIGMA = DiscreteVP(1000).log_sigma((STEP + 1) / 1000)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def saved(folder, found, name="published.pth"):
    torch.save(found, folder / name)
    return str(folder / name)


def parallel(weights):
    return {f"module.{name}": value for name, value in weights.items()}


# Formats


def test_score_sde_loads_with_its_averages(tmp_path):
    raw, averaged, x, sigma = score_sde(), score_sde(), images(16), torch.tensor([0.01, 0.7, 50.0])
    averaged["all_modules.0.W"] = raw["all_modules.0.W"]
    score = ncsnpp(averaged, (x + 1) / 2, sigma, **SCORE_SDE, sides=(8,))
    shadow = [value for name, value in averaged.items() if name not in ("sigmas", "all_modules.0.W")]
    found = {
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 2e-4}]},
        "model": parallel(raw),
        "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": shadow},
        "step": 3,
    }
    ours = NCSNpp(3, **SCORE_SDE, attention=(2,)).eval()
    load_published(ours, saved(tmp_path, found))
    assert_close(ours(x, torch.log(2 * sigma)), -score * sigma[:, None, None, None], **CLOSE)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_folder_of_diffusers_answers_as_diffusers(safe, tmp_path):
    theirs = UNet2DModel(
        sample_size=8, block_out_channels=(128, 256), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
    ).eval()  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path, safe_serialization=safe)
    (file,) = tmp_path.glob("diffusion_pytorch_model.*")
    x = images()
    for place in (file, tmp_path):
        ours = DDPMUNet(3, **UNET).eval()
        load_published(ours, str(place))
        assert_close(ours(x, LOG_SIGMA), theirs(x, STEP).sample, atol=1e-5, rtol=1e-5)

    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "unet").symlink_to(tmp_path)
    ours = DDPMUNet(3, **UNET).eval()
    load_published(ours, str(tmp_path / "pipeline"))
    assert_close(ours(x, LOG_SIGMA), theirs(x, STEP).sample, atol=1e-5, rtol=1e-5)

    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "norm_eps": 1e-5}))
    why = ": is of a network with norm_eps '1e-05' by its config.json, DDPMUNet has 1e-06"
    assert refusal(ours, str(tmp_path)) == f"/{file.name}{why}"
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert "has a config.json beside it that cannot be read" in refusal(ours, str(file))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^no diffusion_pytorch_model\.safetensors or .* in {tmp_path} or"):
        load_published(DDPMUNet(3, **UNET), str(tmp_path))


@pytest.mark.parametrize("averaged", ["ema", "model_ema", "state_dict_ema"])
def test_averages_under_the_same_names_are_loaded_in_the_place_of_raw_weights(averaged, tmp_path, capsys):
    weights, x, theirs = pytorch_diffusion()
    raw = {f"_orig_mod.{name}": torch.zeros_like(value) for name, value in weights.items()}
    path, ours = saved(tmp_path, {"model": raw, averaged: dict(weights), "step": 3}), DDPMUNet(3, **UNET).eval()
    load_published(ours, path)
    assert_close(ours(x, LOG_SIGMA), theirs, **CLOSE)
    assert capsys.readouterr().err == f"{path}: the averaged weights are taken, {averaged}\n"


@pytest.mark.parametrize("kind", ["plain", "with optimiser and average"])
def test_ddpm_loads(kind, tmp_path):
    weights, x, theirs = pytorch_diffusion()
    found = dict(weights)
    if kind != "plain":
        raw = {name: torch.zeros_like(value) for name, value in weights.items()}
        found = [parallel(raw), {"state": {}}, 7, 800, dict(weights)]
    ours = DDPMUNet(3, **UNET).eval()
    load_published(ours, saved(tmp_path, found, "model.ckpt"))
    assert_close(ours(x, LOG_SIGMA), theirs, **CLOSE)


def test_classification_diffusion_loads_its_averages(tmp_path):
    weights, x = Weights(), images()
    features = ddpm(weights, x, None, 256, **UNET, sides=(4,)).mean(dim=(2, 3))
    theirs = weights.linear("linear_layer", features, 12).cumsum(1)
    raw = {name: torch.zeros_like(value) for name, value in weights.items()}
    ours = LevelNetwork(UNetTrunk(3, 256, **UNET), 12).eval()
    load_published(ours, saved(tmp_path, {"model_state_dict": raw, "ema_model_state_dict": dict(weights), "step": 9}))
    assert_close(ours(x), theirs, **CLOSE)


def test_the_guided_unet_loads_without_its_variances(tmp_path):
    net, x = guided("residual", heads=None), images()
    net.tell(STEP)
    theirs = net.decode(*net.encode(x, (1, 2)), (1, 2), out=6)
    path = saved(tmp_path, dict(net.w))
    for out in (3, 6):
        ours = UNet(3, **TOLD, resampling="residual", head_channels=64, out_channels=out).eval()
        load_published(ours, path)
        assert_close(ours(x, LOG_SIGMA), theirs[:, :out], **CLOSE)


def test_a_joint_model_loads_into_unet_and_head(tmp_path):
    net, x, eps, logits = joint()
    unet = UNet(3, **TOLD)
    ours = JointNetwork(unet, JointHead(unet.pooled_channels, 5)).eval()
    load_published(ours, saved(tmp_path, {**net.w, "augmentation.ColorJitter_0.p": torch.ones(1)}))
    skips, middle, emb = ours.unet.encode(x, torch.full((3,), -12.0))
    assert_close(ours.unet.decode(skips, middle, emb), eps, **CLOSE)
    assert_close(ours.head(pool(skips, middle), torch.zeros(3)), logits, **CLOSE)


def test_a_joint_model_trained_here_loads_from_its_checkpoint(tmp_path):
    def network():
        unet = UNet(3, **UNET, attention=(2,))
        return JointNetwork(unet, JointHead(unet.pooled_channels, 5))

    trained, ours = network(), network()
    parts = {"denoiser.network": trained.unet, "classifier.network": trained.unet, "classifier.head": trained.head}
    state = {f"{part}.{name}": value for part, net in parts.items() for name, value in net.state_dict().items()}
    load_published(ours, saved(tmp_path, {"state_dict": state, "global_step": 7}, "final.ckpt"))
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in ours.state_dict().items())


def test_the_guided_classifier_loads_and_a_second_input_starts_near_zero(tmp_path):
    net, x, theirs = guided_classifier()
    path = saved(tmp_path, dict(net.w))
    one, two = (EncoderClassifier(3, 7, 8, **TOLD, inputs=inputs).eval() for inputs in (1, 2))
    for ours in (one, two):
        load_published(ours, path)
    assert_close(one(x, LOG_SIGMA), theirs, **CLOSE)
    assert sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters()) == 3 * 128 * 9 + 128

    second, x_hat = two.encoder.stem.convs[1], images()
    assert_close(two((x, x_hat), LOG_SIGMA), theirs, atol=5e-3, rtol=0)
    assert second.weight.std() == pytest.approx(1e-4, rel=0.1)
    assert not second.bias.any()
    second.weight.zero_()
    assert torch.equal(two((x, x_hat), LOG_SIGMA), one(x, LOG_SIGMA))


IMAGENET = (1, 1, 2, 2, 4, 4)


@pytest.mark.parametrize(("classes", "parameters"), [(None, 552_814_086), (1000, 552_814_086 + 1000 * 1024)])
def test_guided_unets_of_imagenet_load_by_name_and_shape(classes, parameters):
    with torch.device("meta"):
        net = Guided(Weights(), 2, (32, 16, 8), None, True)
        net.width = 256
        net.tell(torch.ones(1), torch.zeros(1, dtype=torch.long) if classes else None, classes or 0)
        net.decode(*net.encode(torch.ones(1, 3, 256, 256), IMAGENET), IMAGENET, out=6)
        ours = UNet(
            3, 256, IMAGENET, 2, (8, 16, 32), classes=classes, out_channels=6, resampling="residual", head_channels=64,
            noise=GuidedStepEmbedding,
        )  # fmt: skip
    assert sum(value.numel() for value in net.w.values()) == parameters
    found = from_guided_diffusion(net.w)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in ours.state_dict().items()}


def test_the_guided_classifier_of_imagenet_loads_by_name_and_shape():
    with torch.device("meta"):
        net = Guided(Weights(), 2, (32, 16, 8), None, True)
        net.tell(torch.ones(1))
        net.pool(net.encode(torch.ones(1, 3, 256, 256), IMAGENET)[0], classes=1000)
        ours = EncoderClassifier(3, 1000, 256, multipliers=IMAGENET, attention=(8, 16, 32), noise=GuidedStepEmbedding)
    assert sum(value.numel() for value in net.w.values()) == 54_096_360
    found = from_guided_classifier(net.w)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in ours.state_dict().items()}


# Refused


def refusal(network, path):
    """The one line with which a file is refused; the network keeps its weights."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^{re.escape(path)}") as error:
        load_published(network, path)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    message = str(error.value)
    assert error.value.__cause__ is None
    assert "\n" not in message
    return message.removeprefix(path)


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    torch.manual_seed(0)
    return saved(tmp_path_factory.mktemp("classifier"), dict(guided_classifier()[0].w))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: UNet(3, **TOLD), ": holds the weights of a guided-diffusion classifier, which fit EncoderClassifier"),
        (lambda: EncoderClassifier(3, 7, 8, **UNET, attention=(2,)), "by GuidedStepEmbedding, not NoiseEmbedding; set"),
        (
            lambda: EncoderClassifier(3, 8, 8, **TOLD),
            "2 of 77 weights differ, the first is head.weight, (7, 256) in the file and (8, 256) in the network",
        ),
        (lambda: EncoderClassifier(3, 7, 8, **{**TOLD, "blocks": 2}), "is no weight of a classifier of guided"),
        (lambda: EncoderClassifier(1, 7, 8, **TOLD), "the first is encoder.stem.convs.0.weight, (128, 3, 3, 3) in"),
    ],
    ids=["network", "noise", "classes", "blocks", "channels"],
)
def test_weights_of_another_shape_are_refused(network, message, classifier_file):
    assert message in refusal(network(), classifier_file)


def test_left_over_and_missing_weights_are_named(classifier_file, tmp_path):
    weights, ours = torch.load(classifier_file), EncoderClassifier(3, 7, 8, **TOLD)
    more = saved(tmp_path, {**weights, "other.weight": torch.zeros(1)})
    assert refusal(ours, more).startswith(": other.weight is no weight of")
    name = "middle_block.1.qkv.weight"
    less = saved(tmp_path, {key: value for key, value in weights.items() if key != name})
    assert refusal(ours, less).startswith(f": {name} is missing")


def test_a_missing_weight_of_diffusers_is_refused(tmp_path):
    path = saved(tmp_path, {"time_embedding.linear_1.weight": torch.zeros(512, 128)})
    assert "weights differ, the first is noise.layers.0.bias, missing in the file" in refusal(DDPMUNet(3, **UNET), path)


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", 5000, 0.5], ids=["empty", "other", "start", "half"])
def test_a_damaged_file_is_refused(suffix, content, classifier_file, tmp_path):
    path = tmp_path / f"damaged.{suffix}"
    if not isinstance(content, bytes):
        (torch.save if suffix == "pth" else save_file)(torch.load(classifier_file), path)
        whole = path.read_bytes()
        content = whole[: content if isinstance(content, int) else int(content * len(whole))]
    path.write_bytes(content)
    assert "damaged or holds other objects" in refusal(EncoderClassifier(3, 7, 8, **TOLD), str(path))


def test_objects_other_than_weights_are_not_read(tmp_path):
    ours = DDPMUNet(3, **UNET)
    assert "holds other objects" in refusal(ours, saved(tmp_path, {"model": Malicious()}))
    known = "known are those of NCSN++ of score_sde, a CDM,"
    for found in ([], 3, {"step": 3}, {"model": {"a": 3}}):
        assert ": holds no weights by name" in refusal(ours, saved(tmp_path, found))
    assert f"of an unknown network; {known}" in refusal(ours, saved(tmp_path, {"a": torch.ones(1)}))


def test_a_missing_file_is_named_with_the_known_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^no checkpoint at {tmp_path}/no\.pt; .*256x256_diffusion_uncond$"):
        load_published(DDPMUNet(3, **UNET), str(tmp_path / "no.pt"))


# By name


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file that is published at a URL of this machine, under the name ``mine``; and the folder of downloads."""
    weights, *_ = pytorch_diffusion()
    path = saved(tmp_path, dict(weights), "mine.pt")
    file = tmp_path / "mine.pt"
    digest = sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, "mine", Published(file.as_uri(), digest, "DDPMUNet"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return path, file, tmp_path / "hub" / "checkpoints"


def test_a_known_name_is_downloaded_once(published):
    path, file, folder = published
    named, local = DDPMUNet(3, **UNET), DDPMUNet(3, **UNET)
    load_published(named, "mine")
    load_published(local, path)
    assert all(torch.equal(value, local.state_dict()[name]) for name, value in named.state_dict().items())
    assert [cached.name for cached in folder.iterdir()] == ["mine.pt"]
    file.unlink()
    load_published(named, "mine")


def test_a_download_that_fails_names_the_option_for_a_local_file(published):
    _, file, folder = published
    file.unlink()
    url = re.escape(file.as_uri())
    expected = f"^mine could not be downloaded from {url}: .*; name a local file by the key 'checkpoint'$"
    with pytest.raises(ConnectionError, match=expected) as error:
        load_published(DDPMUNet(3, **UNET), "mine")
    assert "\n" not in str(error.value)
    assert list(folder.iterdir()) == []


def test_a_download_of_other_bytes_is_refused(published):
    _, file, _ = published
    file.write_bytes(b"a page that asks to log in")
    with pytest.raises(ValueError, match=r"mine\.pt is not mine as published: its sha256 is [0-9a-f]{64}; delete"):
        load_published(DDPMUNet(3, **UNET), "mine")


def test_every_known_file_has_a_whole_digest_and_its_own_name():
    for name, entry in known.KNOWN.items():
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.url.startswith("https://")
        assert name in entry.url
    assert len({entry.url.rsplit("/", 1)[-1] for entry in KNOWN.values()}) == len(KNOWN)


def test_nothing_is_read_before_it_is_needed():
    assert starting_from(None, DDPMUNet(3, **UNET)) is None
    start = starting_from("no.pt", DDPMUNet(3, **UNET))
    with pytest.raises(FileNotFoundError):
        start()
