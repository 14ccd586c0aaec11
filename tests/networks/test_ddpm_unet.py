"""The UNet of DDPM: its size, its steps, and its equality to an independent implementation."""

import re

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from methods import UNLABELED
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.networks.ddpm_unet import DDPMUNet, PaddedDown
from methods.networks.published.diffusers import from_diffusers
from methods.networks.steps import StepEmbedding

SIZES = {
    "cifar10": ({}, 35_746_307),
    "celeba-64": (dict(multipliers=(1, 2, 2, 2, 4), attention=(4,)), 78_700_803),
    "cifar10-conditional": (dict(classes=10), 36_076_419),
}


@pytest.mark.parametrize(("arguments", "parameters"), SIZES.values(), ids=SIZES)
def test_the_network_has_the_parameters_of_its_source(arguments, parameters):
    with torch.device("meta"):
        net = DDPMUNet(3, **arguments)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("pure_noise", [False, True])
def test_every_level_of_the_process_is_its_step_exactly(steps, pure_noise):
    process = DiscreteVP(steps, pure_noise=pure_noise)
    levels = torch.arange(1, steps + 1)
    found = StepEmbedding(4, 8, steps).step(process.log_sigma(levels / process.last))
    assert torch.equal(found, levels - 1.0)


def test_levels_between_two_steps_are_fractions_and_levels_beyond_are_the_nearest_step():
    noise = StepEmbedding(4, 8)
    table = noise.log_sigmas
    torch.testing.assert_close(noise.step(0.75 * table[:-1] + 0.25 * table[1:]), torch.arange(999) + 0.25)
    assert noise.step(torch.tensor([-12.0, 12.0])).tolist() == [0, 999]
    step = noise.step(VarianceExploding().log_sigma(torch.linspace(0, 1, 100)))
    assert bool((step.diff() >= 0).all())


def their(layers: int = 2, attention: bool = True) -> UNet2DModel:
    """Three levels of google/ddpm-cifar10-32, with random weights."""
    kind = "Attn" if attention else ""
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(128, 256, 256),
        down_block_types=("DownBlock2D", f"{kind}DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", f"{kind}UpBlock2D", "UpBlock2D"),
        layers_per_block=layers,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=32,
    ).eval()


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_weights_of_diffusers_give_the_answers_of_diffusers(layers):
    theirs, ours = their(layers), DDPMUNet(3, multipliers=(1, 2, 2), blocks=layers).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict()))
    step = torch.tensor([0, 417, 999])
    x, log_sigma = torch.randn(3, 3, 16, 16), DiscreteVP(1000).log_sigma((step + 1) / 1000)
    torch.testing.assert_close(ours(x, log_sigma), theirs(x, step).sample, atol=1e-5, rtol=1e-5)


def test_older_names_of_attention_load_alike():
    state = their(1).state_dict()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {re.sub("|".join(map(re.escape, older)), lambda m: older[m[0]], name): v for name, v in state.items()}
    assert sum("query" in name for name in renamed) == 8
    found, expected = from_diffusers(renamed), from_diffusers(state)
    assert found.keys() == expected.keys() == DDPMUNet(3, multipliers=(1, 2, 2), blocks=1).state_dict().keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_name_of_the_published_shape_is_found():
    kinds = [f"{kind}DownBlock2D" for kind in ("", "Attn", "", "")]
    with torch.device("meta"):
        theirs = UNet2DModel(
            block_out_channels=(128, 256, 256, 256),
            down_block_types=kinds,
            up_block_types=[kind.replace("Down", "Up") for kind in reversed(kinds)],
            attention_head_dim=None,
        )
        ours = DDPMUNet(3).state_dict()
    loaded = from_diffusers(theirs.state_dict())
    assert {name: value.shape for name, value in loaded.items()} == {name: v.shape for name, v in ours.items()}


def test_a_weight_of_another_network_is_refused():
    with pytest.raises(ValueError, match=r"class_embedding\.weight is no weight"):
        from_diffusers({**their(1, attention=False).state_dict(), "class_embedding.weight": torch.zeros(3, 8)})


def test_halving_sees_no_pixel_before_the_first():
    down = PaddedDown(1)
    nn.init.ones_(down.weight)
    nn.init.zeros_(down.bias)
    assert down(torch.ones(1, 1, 4, 4), None).flatten().tolist() == [9, 6, 6, 4]


def test_labels_are_told_apart():
    net = DDPMUNet(1, width=8, multipliers=(1, 2), blocks=1, classes=3).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1)
    answers = net(x, torch.zeros(4), torch.tensor([0, 1, 2, UNLABELED]))
    assert torch.pdist(answers.flatten(1)).min() > 1e-3


@pytest.mark.parametrize(("size", "multipliers"), [(8, (1, 2, 2, 2)), (28, (1, 2, 2))])
def test_small_networks_take_small_images(size, multipliers):
    x = torch.randn(2, 1, size, size)
    assert DDPMUNet(1, width=8, multipliers=multipliers, blocks=1)(x, torch.zeros(2)).shape == x.shape
