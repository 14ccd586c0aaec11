"""UNet of DDPM, told the noise level as a step of its table; (c) compares with it and builds on it."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Backend, NormAct, SelfAttention, class_index, zero_init
from methods.networks.unet import Decoder, Encoder

EPS = 1e-6
"""Of every group norm."""


class StepEmbedding(nn.Module):
    """Sines and cosines of the step that has this noise level, then ``Linear -> SiLU -> Linear``: ``(B,) -> (B, E)``.

    Steps ``0 ... steps - 1`` are those of the linear schedule, ``log sigma`` between two of them is a fraction of a
    step, and what lies beyond is the first or the last one. Frequencies are geometric from 1 to 1e-4 per step.

    Source: Ho et al. 2020 (arXiv:2006.11239), App. B and code.

    Args:
        steps: Length of the table; both ends of ``beta``, 1e-4 and 0.02, are scaled by ``1000 / steps``.
        frequencies: Number of frequencies.
        embedding: Width ``E``.

    Raises:
        ValueError: If ``steps < 2``.
    """

    def __init__(self, steps: int, frequencies: int, embedding: int) -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(f"steps must be at least 2 to have something between them, got {steps}")
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
        alpha_bar = torch.cumprod(1 - beta.clamp(max=0.999), dim=0)
        table = -0.5 * torch.logit(alpha_bar)
        exponents = torch.arange(frequencies) / max(frequencies - 1, 1)
        self.register_buffer("log_sigmas", table.float(), persistent=False)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def step(self, log_sigma: Tensor) -> Tensor:
        """Step of each noise level, ``(B,)``: exact for the levels of the table, linear in between."""
        table = self.log_sigmas
        log_sigma = log_sigma.to(table.dtype).clamp(table[0], table[-1]).contiguous()
        above = torch.searchsorted(table, log_sigma).clamp(min=1)
        low, high = table[above - 1], table[above]
        return above - 1 + (log_sigma - low) / (high - low)

    def forward(self, log_sigma: Tensor) -> Tensor:
        phase = self.step(log_sigma)[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


class LabelEmbedding(nn.Module):
    """``Embedding -> Linear -> SiLU -> Linear`` of the class, ``(B,) -> (B, E)``; no label is index ``K``.

    Source: (c), official code.
    """

    def __init__(self, classes: int, width: int, embedding: int) -> None:
        super().__init__()
        self.classes, self.table = classes, nn.Embedding(classes + 1, width)
        self.layers = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, y: Tensor | None, like: Tensor) -> Tensor:
        """For as many labels as there are images in ``like``, where ``y`` gives none."""
        return self.layers(self.table(class_index(y, self.classes, like)))


class AdditiveBlock(nn.Module):
    """``skip(x) + conv(dropout(act(norm(conv(act(norm(x))) + linear(emb)))))``; the last convolution starts at zero.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        embedding: Width of the embedding; None for a block that is told nothing.
        dropout: Share of activations dropped.
    """

    def __init__(self, in_channels: int, channels: int, embedding: int | None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in = NormAct(in_channels, eps=EPS)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.emb = None if embedding is None else nn.Linear(embedding, channels)
        self.norm_out = NormAct(channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.conv_in(self.norm_in(x))
        if self.emb is not None:
            h = h + self.emb(emb)[..., None, None]
        return self.skip(x) + self.conv_out(self.dropout(self.norm_out(h)))


class PaddedDown(nn.Conv2d):
    """Halved resolution by a learned convolution of stride 2, padded on the right and at the bottom alone."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def encoder_and_decoder(
    in_channels: int,
    out_channels: int,
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    embedding: int | None,
    dropout: float,
    backend: Backend = "plain",
) -> tuple[Encoder, Decoder]:
    """The UNet of DDPM around its embedding: blocks that add it, attention of one head."""
    layers: dict[str, Any] = {
        "block": partial(AdditiveBlock, embedding=embedding, dropout=dropout),
        "attend": partial(SelfAttention, backend=backend, eps=EPS),
    }
    levels = (width, multipliers, blocks, attention)
    encoder = Encoder(in_channels, *levels, **layers, down=PaddedDown)
    return encoder, Decoder(encoder.skip_channels, *levels, **layers, out_channels=out_channels, eps=EPS)


class DDPMUNet(nn.Module):
    """``F(x, log sigma, y)``, ``(B, C, H, W) -> (B, C, H, W)``, an estimate of ``eps``; zero everywhere at the start.

    Defaults are those for CIFAR-10; CelebA at 64 px has ``multipliers`` (1, 2, 2, 2, 4) and ``attention`` (4,).

    Source: Ho et al. 2020 (arXiv:2006.11239), App. B; labels as in (c), whose embedding is added to that of the step.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level and direction; one more on the way up.
        attention: Down-factors of the levels with attention, beside the middle.
        dropout: Share of activations dropped in residual blocks.
        classes: Number of classes ``K``, or None for a network that labels do not reach.
        steps: Length of the table whose steps the network is told.
        backend: How attention is computed; losses with second derivatives need ``plain``.

    Raises:
        ValueError: As ``Encoder`` and ``StepEmbedding``.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 2,
        attention: Sequence[PositiveInt] = (2,),
        dropout: ClosedUnitInterval = 0.1,
        classes: PositiveInt | None = None,
        steps: PositiveInt = 1000,
        backend: Backend = "plain",
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        embedding = 4 * width
        self.noise = StepEmbedding(steps, width // 2, embedding)
        self.label = None if classes is None else LabelEmbedding(classes, width, embedding)
        self.encoder, self.decoder = encoder_and_decoder(
            in_channels, in_channels, width, multipliers, blocks, attention, embedding, dropout, backend
        )

    def forward(self, x: Tensor, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """Output for log noise levels ``(B,)`` and labels ``(B,)``; labels are ignored without ``classes``."""
        emb = self.noise(log_sigma)
        if self.label is not None:
            emb = emb + self.label(y, like=x)
        emb = F.silu(emb)
        return self.decoder(*self.encoder(x, emb), emb)


LAYERS = {
    "norm1": "block.norm_in.norm",
    "conv1": "block.conv_in",
    "time_emb_proj": "block.emb",
    "norm2": "block.norm_out.norm",
    "conv2": "block.conv_out",
    "conv_shortcut": "block.skip",
    "group_norm": "attend.norm",
    "qkv": "attend.qkv",
    "to_out.0": "attend.proj",
    "conv": "",
}
OUTSIDE = {
    "conv_in": "encoder.stem.convs.0",
    "time_embedding.linear_1": "noise.layers.0",
    "time_embedding.linear_2": "noise.layers.2",
    "conv_norm_out": "decoder.norm.norm",
    "conv_out": "decoder.out",
}
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the layers of attention in early versions of diffusers, which published checkpoints still have."""


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``DDPMUNet`` from those of ``UNet2DModel`` of the same shape, such as google/ddpm-cifar10-32.

    Raises:
        ValueError: If a name is none of such a network.
    """
    state = {re.sub("|".join(rf"\b{old}\b" for old in OLDER), lambda m: OLDER[m[0]], k): v for k, v in state.items()}
    for name in [name for name in state if ".to_q." in name]:
        parts = [state.pop(name.replace("to_q", part)) for part in ("to_q", "to_k", "to_v")]
        qkv = torch.cat(parts)
        state[name.replace("to_q", "qkv")] = qkv[..., None, None] if qkv.dim() == 2 else qkv
    stages = 1 + len({name.split(".")[3] for name in state if name.startswith("down_blocks.0.resnets.")})
    return {_renamed(name, stages): _as_conv(name, value) for name, value in state.items()}


def _as_conv(name: str, value: Tensor) -> Tensor:
    """Matrices of attention as 1x1 convolutions."""
    return value[..., None, None] if "to_out.0.weight" in name and value.dim() == 2 else value


def _renamed(name: str, stages: int) -> str:
    """Our name of a weight; ``stages`` counts those of a level of the encoder, its halving included."""
    layer, _, kind = name.rpartition(".")
    if layer in OUTSIDE:
        return f"{OUTSIDE[layer]}.{kind}"
    found = re.fullmatch(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", layer)
    if not found or found[5] not in LAYERS:
        raise ValueError(f"{name} is no weight of a UNet2DModel without class embedding and with plain blocks")
    part, level, kind_of, index, inner = found[1], int(found[2] or 0), found[3], int(found[4]), LAYERS[found[5]]
    if kind_of == "downsamplers":
        place = f"encoder.stages.{level * stages + stages - 1}"
    elif kind_of == "upsamplers":
        place = f"decoder.ups.{level}"
    elif part == "down_blocks":
        place = f"encoder.stages.{level * stages + index}"
    elif part == "mid_block":
        place = f"encoder.middle.{index}"
    else:
        place = f"decoder.levels.{level}.{index}"
    return ".".join(piece for piece in (place, inner, kind) if piece)
