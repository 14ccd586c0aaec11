"""What must hold of every network, and the parameter counts that their sources state."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch.autograd.gradcheck import gradgradcheck

from methods import UNLABELED
from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.encoder_classifier import EncoderClassifier
from methods.networks.layers import attention, group_norm, layout, standardise, upsample
from methods.networks.ncsnpp import NCSNpp
from methods.networks.ncsnpp_classifier import NCSNppEncoderClassifier
from methods.networks.steps import GuidedStepEmbedding
from methods.networks.unet import UNet, pool
from methods.networks.wrn import WideResNet

SIZE = 8
TINY = dict(width=8, multipliers=(1, 2), blocks=1, attention=(2,))
NETWORKS = {
    "unet": lambda **kw: UNet(1, width=8, multipliers=(1, 2), blocks=1, attention=(2,), heads=2, **kw),
    "unet-residual": lambda: UNet(1, width=8, multipliers=(1, 2), blocks=1, attention=(), resampling="residual"),
    "wrn": lambda: WideResNet(1, 3, depth=10, width=1),
    "encoder-flat": lambda: EncoderClassifier(
        1, 3, SIZE, width=8, multipliers=(1, 2), blocks=1, attention=(), data_std=0.5, pool="flatten"
    ),
    "encoder": lambda **kw: EncoderClassifier(1, 3, SIZE, width=8, multipliers=(1, 2), blocks=1, attention=(2,), **kw),
    "ddpm": lambda **kw: DDPMUNet(1, **TINY, dropout=0, **kw),
    "ncsnpp": lambda **kw: NCSNpp(1, **TINY, dropout=0, **kw),
    "ncsnpp-encoder": lambda **kw: NCSNppEncoderClassifier(1, 3, SIZE, **TINY, dropout=0, **kw),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def built(network: str, **kwargs) -> nn.Module:
    """A small network whose zero-initialised layers are random too."""
    net = NETWORKS[network](**kwargs)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def batch(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, SIZE, SIZE), torch.randn(n)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


UNETS = {
    "cifar10": (dict(in_channels=3), 52_542_979, 20.41, 3712),
    "fashion-mnist": (dict(in_channels=1, width=64, multipliers=(1, 2, 2), attention=(1,)), 8_799_105, 3.53, 1344),
    "grey": (dict(in_channels=1, width=64), 13_157_889, 5.11, 1856),
    "celeba": (dict(in_channels=3, multipliers=(1, 2, 3, 4), attention=(4, 8)), 121_060_483, 48.38, 5248),
}


@pytest.mark.parametrize(("arguments", "parameters", "encoder", "pooled"), UNETS.values(), ids=UNETS)
def test_unet_has_the_parameters_and_pooled_features_of_its_source(arguments, parameters, encoder, pooled):
    with torch.device("meta"):
        net = UNet(**arguments)
    assert count(net) == parameters
    assert round((count(net.encoder) + count(net.noise)) / 1e6, 2) == encoder
    assert net.pooled_channels == pooled


@pytest.mark.parametrize("network", ["unet", "unet-residual"])
def test_pooled_features_have_the_stated_length(network):
    net = built(network)
    skips, middle, _ = net.encode(*batch())
    assert pool(skips, middle).shape == (4, net.pooled_channels)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [({}, 1_521_370), ({"noise": False}, 1_456_858), ({"inputs": 2}, 1_521_370 + 432)],
    ids=["noisy", "clean", "assisted"],
)
def test_wide_resnet_28_2_has_the_parameters_of_its_source(arguments, parameters):
    with torch.device("meta"):
        assert count(WideResNet(3, 10, **arguments)) == parameters


ENCODERS = {
    "imagenet-256": ((3, 1000, 256), dict(multipliers=(1, 1, 2, 2, 4, 4), attention=(8, 16, 32)), 54_096_360),
    "cifar10": ((3, 10, 32), {}, 17_445_386),
    "celeba-64": ((3, 40, 64), dict(multipliers=(1, 2, 3, 4), attention=(2, 4, 8)), 40_794_536),
    "grey-28": ((1, 10, 28), dict(multipliers=(1, 2, 2), attention=(1,)), 12_065_290),
    "cifar10-assisted": ((3, 10, 32), {"inputs": 2}, 17_445_386 + 3 * 128 * 9 + 128),
}


@pytest.mark.parametrize(("positional", "named", "parameters"), ENCODERS.values(), ids=ENCODERS)
def test_encoder_classifier_has_the_parameters_of_guided_diffusion(positional, named, parameters):
    with torch.device("meta"):
        assert count(EncoderClassifier(*positional, **named)) == parameters


@every_network
def test_the_answer_for_an_image_does_not_depend_on_its_batch(network):
    net = built(network).train()
    x, log_sigma = batch()
    others, levels = 50 * torch.randn_like(x), -log_sigma
    alone = net(x[:1], log_sigma[:1])
    together = net(torch.cat([x[:1], others]), torch.cat([log_sigma[:1], levels]))[:1]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@every_network
def test_second_derivatives_are_those_of_finite_differences(network):
    net = built(network).double()
    x, log_sigma = (v.double() for v in batch(2))
    weights = [p for p in net.parameters() if p.dim() == 4][:2]

    def outputs(x, *_):
        return net(x, log_sigma)

    assert gradgradcheck(outputs, (x.requires_grad_(), *weights), fast_mode=True)


@every_network
def test_a_loss_of_input_gradients_reaches_every_weight(network):
    net = built(network)
    x, log_sigma = batch()
    (gradient,) = torch.autograd.grad(net(x.requires_grad_(), log_sigma).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("network", ["unet", "encoder", "ddpm", "ncsnpp", "ncsnpp-encoder"])
def test_plain_and_fused_attention_agree_in_value_and_gradient(network):
    plain, fused = built(network), built(network, backend="sdpa")
    fused.load_state_dict(plain.state_dict())
    x, log_sigma = batch()
    answers = []
    for net in (plain, fused):
        x_t = x.clone().requires_grad_()
        out = net(x_t, log_sigma)
        answers.append((out, *torch.autograd.grad(out.square().sum(), [x_t, *net.parameters()])))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=1e-4)


def test_attention_to_equal_keys_is_the_mean_of_the_values():
    q, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    out = attention(q, torch.ones(2, 3, 7, 4), v)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand(-1, -1, 5, -1))


@every_network
def test_channels_last_gives_the_same_answer_and_is_kept(network):
    net = built(network)
    x, log_sigma = batch()
    expected = net(x, log_sigma)
    net.to(memory_format=torch.channels_last)
    layouts = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 1:
            module.register_forward_pre_hook(lambda _, args: layouts.append(layout(args[0])))
    answer = net(x.to(memory_format=torch.channels_last), log_sigma)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)
    assert set(layouts) == {torch.channels_last}


@pytest.mark.parametrize("network", ["unet", "unet-residual", "ddpm", "ncsnpp"])
def test_the_output_of_a_new_unet_is_zero(network):
    x, log_sigma = batch()
    assert not NETWORKS[network]()(x, log_sigma).any()


@pytest.mark.parametrize("network", ["unet", "ddpm", "ncsnpp"])
def test_no_label_is_the_class_after_the_last(network):
    net = built(network, classes=3)
    x, log_sigma = batch()
    unlabeled = torch.full((4,), UNLABELED)
    torch.testing.assert_close(net(x, log_sigma, unlabeled), net(x, log_sigma))
    torch.testing.assert_close(net(x, log_sigma, torch.full((4,), 3)), net(x, log_sigma))
    assert not torch.allclose(net(x, log_sigma, torch.zeros(4, dtype=torch.long)), net(x, log_sigma))


def test_decoding_what_was_encoded_is_the_forward_pass_and_leaves_the_skips_alone():
    net = built("unet", classes=3, out_channels=2)
    x, log_sigma = batch()
    y = torch.tensor([0, 1, 2, UNLABELED])
    skips, middle, emb = net.encode(x, log_sigma, y)
    for _ in range(2):
        torch.testing.assert_close(net.decode(skips, middle, emb), net(x, log_sigma, y))
    assert net(x, log_sigma, y).shape == (4, 2, SIZE, SIZE)


def test_pooled_features_are_the_middle_first_and_then_the_skips_in_order():
    means = pool([torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 2, 2), 2.0)], torch.full((2, 1, 2, 2), 3.0))
    assert means.tolist() == [[3.0, 1.0, 2.0]] * 2


@every_network
def test_the_noise_level_matters(network):
    net = built(network)
    x, log_sigma = batch()
    assert not torch.allclose(net(x, log_sigma), net(x, log_sigma + 0.5), atol=1e-4)


def test_wide_resnet_does_not_see_scale_and_offset_of_an_image():
    net = WideResNet(3, 10, depth=10, width=1)
    x, log_sigma = torch.randn(4, 3, SIZE, SIZE), torch.randn(4)
    features = net.features(x, log_sigma)
    assert features.shape == (4, 64)
    torch.testing.assert_close(net.features(100 * x - 3, log_sigma), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net(x, log_sigma), net.head(features))


def test_a_constant_image_standardises_to_zero_with_finite_derivatives():
    x = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    out = standardise(x)
    (gradient,) = torch.autograd.grad(out.square().sum() + out[0, 0, 0, 0], x, create_graph=True)
    gradient.square().sum().backward()
    torch.testing.assert_close(out, torch.zeros_like(out))
    assert gradient.isfinite().all()
    assert x.grad.isfinite().all()


def test_two_inputs_are_standardised_apart_and_summed():
    net = WideResNet(1, 3, depth=10, width=1, inputs=2)
    x, log_sigma = batch()
    x_hat = torch.randn_like(x)
    torch.testing.assert_close(net((x, 9 * x_hat), log_sigma), net((5 * x, x_hat), log_sigma), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(net((x, x_hat), log_sigma), net((x_hat, x), log_sigma), atol=1e-4)
    with pytest.raises(ValueError, match="takes 2 image batches, got 1"):
        net(x, log_sigma)


@pytest.mark.parametrize("encoder", ["encoder", "ncsnpp-encoder"])
def test_a_second_input_hardly_changes_a_new_encoder_classifier(encoder):
    x, log_sigma = batch()
    one, two = NETWORKS[encoder](), NETWORKS[encoder](inputs=2)
    two.load_state_dict(one.state_dict(), strict=False)
    torch.testing.assert_close(two((x, torch.randn_like(x)), log_sigma), one(x, log_sigma), atol=5e-3, rtol=0)


@pytest.mark.parametrize("network", ["wrn", "encoder", "ncsnpp-encoder"])
def test_logits_stay_in_single_precision_under_autocast(network):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert built(network)(*batch()).dtype == torch.float32


def test_a_classifier_of_clean_images_refuses_a_noise_level_and_a_noisy_one_needs_it():
    x, log_sigma = batch()
    clean = WideResNet(1, 3, depth=10, width=1, noise=False)
    assert clean(x).shape == (4, 3)
    with pytest.raises(ValueError, match="takes no log_sigma"):
        clean(x, log_sigma)
    with pytest.raises(ValueError, match="needs log_sigma"):
        built("wrn")(x)


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        ("unet", 7, "multiples of 2, got 7x7"),
        ("ddpm", 7, "multiples of 2, got 7x7"),
        ("ncsnpp", 7, "multiples of 2, got 7x7"),
        ("ncsnpp-encoder", 10, "sides of 8 pixels"),
        ("wrn", 10, "multiples of 4, got 10x10"),
        ("encoder", 10, "sides of 8 pixels"),
    ],
)
def test_images_of_a_wrong_size_are_refused(network, size, message):
    with pytest.raises(ValueError, match=message):
        built(network)(torch.zeros(1, 1, size, size), torch.zeros(1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(1, width=8, multipliers=(1, 2), attention=(3,)), r"among \[1, 2\], got \[3\]"),
        (lambda: UNet(1, width=6, multipliers=(1,), attention=()), "divide the 6 channels .* got 4"),
        (lambda: WideResNet(1, 3, depth=12), "depth must be .* got 12"),
        (lambda: EncoderClassifier(1, 3, 10, width=8, attention=()), "multiple of 8, got 10"),
        (lambda: EncoderClassifier(1, 3, 8, width=8, attention=(), standardise=True, data_std=1.0), "one of the two"),
        (lambda: NCSNpp(1, width=8, multipliers=(1, 2), attention=(3,)), r"among \[1, 2\], got \[3\]"),
        (lambda: NCSNppEncoderClassifier(1, 3, 10, width=8), "multiple of 8, got 10"),
        (lambda: DDPMUNet(1, width=8, steps=1), "at least 2 .* got 1"),
    ],
    ids=["attention", "heads", "depth", "image-size", "two-scalings", "ncsnpp-attention", "ncsnpp-image-size", "steps"],
)
def test_arguments_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 16, 72, 100, 128, 320])
def test_groups_always_divide_the_channels(channels):
    groups = group_norm(channels).num_groups
    assert channels % groups == 0
    assert 1 <= groups <= max(1, min(channels // 4, 32))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsampling_repeats_pixels_in_either_layout(memory_format):
    x = torch.randn(2, 3, 4, 6).to(memory_format=memory_format)
    expected = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(upsample(x), expected)
    assert layout(upsample(x)) == memory_format


STEPS = {"class_path": "methods.networks.steps.GuidedStepEmbedding", "init_args": {"steps": 500}}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet.UNet", {"in_channels": 1, "width": 8, "multipliers": [1, 2], "attention": [], "classes": 3}),
        ("wrn.WideResNet", {"in_channels": 1, "classes": 3, "depth": 10, "activation": "relu"}),
        ("encoder_classifier.EncoderClassifier", {"in_channels": 1, "classes": 3, "image_size": 8, "width": 8}),
        ("unet.UNet", {"in_channels": 1, "width": 8, "classes": 3, "noise": STEPS, "head_channels": 4}),
        ("encoder_classifier.EncoderClassifier", {"in_channels": 1, "classes": 3, "image_size": 8, "noise": STEPS}),
        ("ddpm_unet.DDPMUNet", {"in_channels": 1, "width": 8, "multipliers": [1, 2], "classes": 3, "steps": 500}),
        ("ncsnpp.NCSNpp", {"in_channels": 1, "width": 8, "multipliers": [1, 2], "classes": 3, "backend": "sdpa"}),
        ("ncsnpp_classifier.NCSNppEncoderClassifier", {"in_channels": 1, "classes": 3, "image_size": 8, "width": 8}),
    ],
)
def test_a_network_is_built_from_a_config(name, arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "network")
    config = {"network": {"class_path": f"methods.networks.{name}", "init_args": arguments}}
    net = parser.instantiate_classes(parser.parse_object(config)).network
    assert (net.in_channels, net.classes) == (1, 3)
    if arguments.get("noise") is STEPS:
        assert type(net.noise) is GuidedStepEmbedding
        assert len(net.noise.log_sigmas) == 500


def test_an_encoder_scaled_by_the_data_sees_images_of_unit_variance():
    scaled, plain = built("encoder-flat"), built("encoder-flat")
    plain.load_state_dict(scaled.state_dict())
    plain.data_std = None
    x, log_sigma = batch()
    by_hand = x / torch.sqrt(0.5**2 + log_sigma.exp() ** 2)[:, None, None, None]
    torch.testing.assert_close(scaled(x, log_sigma), plain(by_hand, log_sigma))
