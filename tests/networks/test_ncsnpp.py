"""NCSN++: its size, its filters, its units, its labels and its start."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.gradcheck import gradgradcheck

from methods import UNLABELED
from methods.networks.fir import FirConv, FirDown, FirUp
from methods.networks.layers import layout
from methods.networks.ncsnpp import BigGANBlock, NCSNpp, RescaledAttention
from methods.networks.ncsnpp_classifier import NCSNppEncoderClassifier

TINY = dict(width=8, multipliers=(1, 2), blocks=1, attention=(2,))


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def filtered(x: Tensor, before: int, after: int) -> Tensor:
    """Each output pixel as the sum of 16 shifted and weighted images, of which pixels outside are zero."""
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[2] - 3, x.shape[3] - 3
    taps = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    return sum(a * b * x[..., i : i + height, j : j + width] for i, a in enumerate(taps) for j, b in enumerate(taps))


@pytest.mark.parametrize(
    ("blocks", "channels", "parameters"),
    [(4, 3, 62_758_787), (4, 1, 62_751_873), (8, 3, 107_586_947), (8, 1, 107_580_033)],
)
def test_the_network_has_the_parameters_of_its_source(blocks, channels, parameters):
    with torch.device("meta"):
        net = NCSNpp(channels, blocks=blocks)
    assert count(net) == parameters  # and 128 fixed frequencies, which do not change the rounded number
    assert net.noise.frequencies.shape == (128,)


@pytest.mark.parametrize(("blocks", "millions"), [(4, 25.30), (8, 43.55)])
def test_the_encoder_of_the_classifier_is_that_of_the_network(blocks, millions):
    with torch.device("meta"):
        net, classifier = NCSNpp(3, blocks=blocks), NCSNppEncoderClassifier(3, 10, 32, blocks=blocks)
    assert round(count(classifier.encoder, classifier.noise) / 1e6, 2) == millions
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    shared = [name for name in classifier.state_dict() if name.startswith(("encoder.", "noise."))]
    assert all(shapes[name] == classifier.state_dict()[name].shape for name in shared)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_resampling_is_zeros_filter_and_every_second_pixel(memory_format):
    x = torch.randn(2, 3, 6, 8)
    stuffed = torch.zeros(2, 3, 12, 16)
    stuffed[..., ::2, ::2] = x
    conv = FirConv(3, 5)
    expected = {
        FirUp(3): 4 * filtered(stuffed, 2, 1),
        FirDown(3): filtered(x, 1, 1)[..., ::2, ::2],
        conv: F.conv2d(filtered(x, 2, 2), conv.conv.weight, conv.conv.bias)[..., ::2, ::2],
    }
    for module, answer in expected.items():
        found = module(x.to(memory_format=memory_format))
        torch.testing.assert_close(found, answer, atol=1e-5, rtol=1e-5)
        assert layout(found) == memory_format


@pytest.mark.parametrize("resample", [FirUp, FirDown])
def test_a_constant_image_keeps_its_value_away_from_the_border(resample):
    inner = resample(2)(torch.full((1, 2, 8, 8), 3.0))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 3.0))


@pytest.mark.parametrize("resample", [FirUp(2), FirDown(2), FirConv(2, 3)], ids=["up", "down", "conv"])
def test_resampling_is_in_no_checkpoint_and_has_second_derivatives(resample):
    assert "kernel" not in resample.state_dict()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda x: resample.double()(x).square(), x)


def test_the_frequencies_are_in_the_checkpoint_and_are_not_trained():
    net, other = NCSNpp(1, **TINY), NCSNpp(1, **TINY)
    assert not torch.equal(net.noise.frequencies, other.noise.frequencies)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.noise.frequencies, other.noise.frequencies)
    assert "noise.frequencies" not in dict(net.named_parameters())


def test_twice_the_published_sigma_is_embedded_as_published():
    noise = NCSNpp(1, **TINY).noise
    sigma = torch.tensor([0.01, 0.5, 50.0])
    phase = 2 * math.pi * sigma.log()[:, None] * noise.frequencies
    expected = noise.layers(torch.cat([phase.sin(), phase.cos()], dim=1))
    torch.testing.assert_close(noise((2 * sigma).log()), expected, atol=1e-3, rtol=1e-3)


def test_a_new_block_and_new_attention_only_rescale_their_input():
    x = torch.randn(2, 8, 4, 4)
    for answer in (BigGANBlock(8, 8, 16)(x, torch.randn(2, 16)), RescaledAttention(8)(x)):
        torch.testing.assert_close(answer, x / 2**0.5)


def test_weights_have_the_stated_variance_and_biases_are_zero():
    block, attend = BigGANBlock(64, 128, 256), RescaledAttention(128)
    for layer, scale, fans in [(block.conv_in, 1, (64 * 9, 128 * 9)), (attend.qkv, 0.1, (128, 128))]:
        bound = (3 * scale / (sum(fans) / 2)) ** 0.5
        assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
        assert not layer.bias.any()


@pytest.mark.parametrize("way", ["added", "film"])
def test_labels_reach_a_network_added_to_the_noise_and_as_scale_and_shift(way):
    net, x = NCSNpp(1, **TINY, classes=3).eval(), torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    blocks = [module for module in net.modules() if isinstance(module, BigGANBlock)]
    assert not any(block.film.weight.any() or block.film.bias.any() for block in blocks)  # a start without modulation
    for name, parameter in net.named_parameters():
        if not parameter.any() and (way == "film" or "film" not in name):
            nn.init.normal_(parameter, std=0.1)
    for block in blocks:
        if way == "film":
            nn.init.zeros_(block.noise.weight)
    answers = net(x, torch.zeros(4), torch.tensor([0, 1, 2, UNLABELED]))
    assert torch.pdist(answers.flatten(1)).min() > 1e-3


@pytest.mark.parametrize(("size", "multipliers"), [(8, (1, 2, 2, 2)), (28, (1, 2, 2))])
def test_small_networks_take_small_images(size, multipliers):
    arguments = dict(width=8, multipliers=multipliers, blocks=1)
    x, log_sigma = torch.randn(2, 1, size, size), torch.randn(2)
    assert NCSNpp(1, **arguments)(x, log_sigma).shape == x.shape
    classifier = NCSNppEncoderClassifier(1, 10, size, **arguments)
    assert classifier(x, log_sigma).shape == (2, 10)
    assert classifier.features(x, log_sigma).shape == (2, 16)


def test_a_classifier_told_the_pixels_spread_reads_images_of_one_scale():
    torch.manual_seed(0)
    raw = NCSNppEncoderClassifier(1, 3, 8, width=8, multipliers=(1, 2), blocks=1, attention=()).eval()
    scaled = NCSNppEncoderClassifier(1, 3, 8, width=8, multipliers=(1, 2), blocks=1, attention=(), data_std=0.5).eval()
    scaled.load_state_dict(raw.state_dict())
    x, sigma = torch.randn(4, 1, 8, 8), torch.tensor([0.02, 0.5, 5.0, 100.0])
    spread = torch.sqrt(0.25 + sigma**2)[:, None, None, None]
    torch.testing.assert_close(scaled(spread * x, sigma.log()), raw(x, sigma.log()))
