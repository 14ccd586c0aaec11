"""Our networks and peers' of one shape with equal random weights, as suites have them: weights in channels last."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmark.speed.race import Bench, gradients
from methods.base import Method
from methods.networks.ddpm_unet import DDPMUNet
from methods.networks.level_network import LevelNetwork, UNetTrunk
from methods.networks.ncsnpp import NCSNpp
from methods.networks.published.ddpm import from_cdm
from methods.networks.published.diffusers import from_diffusers
from methods.networks.published.ncsnpp import from_score_sde


class Pair(NamedTuple):
    """Our network, the peer's, and the translation of the peer's weights or gradients into ours."""

    ours: nn.Module
    theirs: nn.Module
    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the peer's weights under our names; 0 for weights that are not trained."""
        found = {name: torch.zeros_like(value) for name, value in self.theirs.state_dict().items()}
        return {k: v for k, v in self.translate(found | gradients(self.theirs)).items() if k in gradients(self.ours)}


def ncsnpp(bench: Bench, width: int, blocks: int) -> Pair | None:
    """NCSN++ of this width, as published for CIFAR-10 but for dropout; None without the peer."""
    if (found := bench.peers.checkout("score_sde", "models.ncsnpp")) is None:
        return None
    multipliers, size = bench.size((1, 2, 2, 2), (1, 2)), bench.size(32, 8)
    config = SimpleNamespace(
        model=SimpleNamespace(
            nf=width, ch_mult=multipliers, num_res_blocks=blocks, attn_resolutions=(size // 2,), dropout=0.0,
            resamp_with_conv=True, conditional=True, fir=True, fir_kernel=[1, 3, 3, 1], skip_rescale=True,
            resblock_type="biggan", progressive="none", progressive_input="residual", progressive_combine="sum",
            embedding_type="fourier", fourier_scale=16, init_scale=0.0, nonlinearity="swish",
            normalization="GroupNorm", scale_by_sigma=False, sigma_min=0.01, sigma_max=50.0, num_scales=1000,
        ),
        data=SimpleNamespace(image_size=size, num_channels=3, centered=True),
        training=SimpleNamespace(continuous=True),
    )  # fmt: skip
    theirs = found[0].NCSNpp(config)
    ours = NCSNpp(3, width, multipliers, blocks, dropout=0.0)
    return _equal(ours, theirs, from_score_sde)


def ddpm_unet(bench: Bench) -> Pair | None:
    """UNet of DDPM as published for CIFAR-10 but for dropout; None without the peer."""
    if (diffusers := bench.peers.package("diffusers")) is None:
        return None
    width, multipliers = 128, bench.size((1, 2, 2, 2), (1, 1))  # fewer channels have other norms there
    plain = ["Block2D"] * (len(multipliers) - 2)
    theirs = diffusers.UNet2DModel(
        sample_size=bench.size(32, 8), in_channels=3, out_channels=3, layers_per_block=2,
        block_out_channels=[width * multiplier for multiplier in multipliers],
        down_block_types=["DownBlock2D", "AttnDownBlock2D", *(f"Down{name}" for name in plain)],
        up_block_types=[*(f"Up{name}" for name in plain), "AttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
        dropout=0.0,
    )  # fmt: skip
    return _equal(DDPMUNet(3, width, multipliers, dropout=0.0), theirs, from_diffusers)


def level_network(bench: Bench) -> Pair | None:
    """Classifier of 1002 noise levels as released for CIFAR-10 but for dropout; None without the peer."""
    if (found := bench.peers.checkout("cdm", "models.diffusion")) is None:
        return None
    width, multipliers, size = 128, bench.size((1, 2, 2, 2), (1, 1)), bench.size(32, 8)
    theirs = found[0].DDPM_Unet(
        channels=width, ch_mult=multipliers, num_res_blocks=2, attn_resolutions=[size // 2], dropout=0.0,
        in_channels=3, out_channels=1002, image_size=size, resamp_with_conv=True, num_classes=None,
    )  # fmt: skip
    trunk = UNetTrunk(3, out_channels=2 * width, width=width, multipliers=multipliers, dropout=0.0)
    return _equal(LevelNetwork(trunk, levels=1002), theirs, from_cdm)


def _equal(ours: nn.Module, theirs: nn.Module, translate: Any) -> Pair:
    """Give both the peer's weights, moved off the zeros that some start from."""
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    ours.load_state_dict(translate(theirs.state_dict()))
    return Pair(as_in_suites(ours), theirs, translate)


def training_step(method: Method, network: nn.Module, x: Tensor) -> Callable[[], None]:
    """The call of a method's training step on unlabeled images, which leaves its gradients in the network."""

    def step() -> None:
        torch.manual_seed(0)
        network.zero_grad()
        method.training_step({"labeled": (x, None)}, 0)["loss"].backward()

    return step


def as_in_suites(module: nn.Module) -> nn.Module:
    """The module in the layout that a training gives it by default."""
    return module.to(memory_format=torch.channels_last)
