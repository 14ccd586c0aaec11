"""NCSN++, the score network of (a) and (d), in an encoder and a decoder that its classifier shares.

Source: Song et al. 2021 (arXiv:2011.13456), App. H, and its code: ``ncsnpp`` with residual progressive input, in
continuous time.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.networks.fir import FirConv, FirDown, FirUp
from methods.networks.layers import (
    Backend,
    Images,
    NormAct,
    SelfAttention,
    Stem,
    as_inputs,
    check_size,
    class_index,
    zero_init,
)
from methods.networks.unet import Decoder, Stage

EPS = 1e-6
"""Epsilon of every group norm."""

HALF = 2**-0.5
"""Factor of every sum of two branches, which keeps the variance of one."""

RESAMPLE = {"up": FirUp, "down": FirDown}


def fan_average(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """The module with uniform weights of variance ``scale`` over the mean of fan-in and fan-out, and biases of zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=scale**0.5)
            nn.init.zeros_(layer.bias)
    return module


class FourierEmbedding(nn.Module):
    """``sin`` and ``cos`` of ``2 pi w log sigma``, then ``Linear -> SiLU -> Linear``: ``(B,) -> (B, E)``.

    The ``w ~ N(0, scale^2)`` are drawn once and kept in the checkpoint; they are not trained.

    Args:
        frequencies: Number of frequencies.
        embedding: Width ``E``.
        scale: Standard deviation of the frequencies, in turns per nat.
        sigma_unit: One unit of the embedded ``sigma``, in units of ours.
    """

    def __init__(self, frequencies: int, embedding: int, scale: float, sigma_unit: float) -> None:
        super().__init__()
        self.log_unit = math.log(sigma_unit)
        self.register_buffer("frequencies", scale * torch.randn(frequencies))
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        fan_average(self.layers)

    def forward(self, log_sigma: Tensor) -> Tensor:
        phase = 2 * math.pi * (log_sigma - self.log_unit)[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


class BigGANBlock(nn.Module):
    """``(skip(x) + conv(dropout(act(norm(conv(act(norm(x))) + linear(emb)))))) / sqrt(2)``; the last starts at zero.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        embedding: Width of the embedding.
        dropout: Share of activations dropped.
        film: Let the embedding set scale and shift of the second norm too, from 1 and 0 at the start.
        resample: Double or halve the resolution of both branches.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding: int,
        dropout: float = 0.0,
        film: bool = False,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__()
        self.resample = RESAMPLE[resample](in_channels) if resample else nn.Identity()
        self.norm_in = NormAct(in_channels, eps=EPS)
        self.conv_in = fan_average(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.noise = fan_average(nn.Linear(embedding, channels))
        self.film = zero_init(nn.Linear(embedding, 2 * channels)) if film else None
        self.norm_out = NormAct(channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(channels, channels, 3, padding=1))  # 1e-10 of the usual variance there
        same = in_channels == channels and resample is None
        self.skip = nn.Identity() if same else fan_average(nn.Conv2d(in_channels, channels, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv_in(self.resample(self.norm_in(x))) + self.noise(emb)[..., None, None]
        film = () if self.film is None else self.film(emb)[..., None, None].chunk(2, dim=1)
        return HALF * (self.skip(self.resample(x)) + self.conv_out(self.dropout(self.norm_out(h, *film))))


class RescaledAttention(SelfAttention):
    """``(x + proj(attention(norm(x)))) / sqrt(2)`` of one head."""

    def __init__(self, channels: int, backend: Backend = "plain") -> None:
        super().__init__(channels, backend=backend, eps=EPS)
        fan_average(self.qkv, 0.2)  # 0.1 of each of the three, whose fan-out is a third

    def forward(self, x: Tensor) -> Tensor:
        return HALF * super().forward(x)


class ProgressiveEncoder(nn.Module):
    """Encoder that is shown the image again at each resolution, filtered and convolved; and the middle at the lowest.

    Args:
        in_channels: Channels of the images.
        width: Channels of the input convolution, and unit of ``multipliers``.
        multipliers: Channels of each level over ``width``, from full resolution down.
        blocks: Stages per level.
        attention: Down-factors of the levels with attention, e.g. 2 for 16 px of images of 32 px.
        block: ``(in_channels, channels) -> BigGANBlock``; takes ``resample`` too.
        backend: How attention is computed.
        inputs: Image batches per call, summed after a convolution each; the first is the image that is shown again.

    Raises:
        ValueError: If ``attention`` names a level that there is not, or on images that cannot be halved so often.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        block: Callable[..., BigGANBlock],
        backend: Backend = "plain",
        inputs: int = 1,
    ) -> None:
        super().__init__()
        factors = [2**level for level in range(len(multipliers))]
        if not set(attention) <= set(factors):
            raise ValueError(f"attention must name down-factors among {factors}, got {list(attention)}")
        self.factor = factors[-1]
        self.stem = fan_average(Stem(in_channels, width, inputs))
        self.levels, self.downs, self.pyramid = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.skip_channels = [width]
        shown = in_channels
        for factor, multiplier in zip(factors, multipliers, strict=True):
            h, out = self.skip_channels[-1], width * multiplier
            if factor > 1:
                self.downs.append(block(h, h, resample="down"))
                self.pyramid.append(fan_average(FirConv(shown, h)))
                self.skip_channels.append(h)
                shown = h
            stages = nn.ModuleList()
            for _ in range(blocks):
                attends = RescaledAttention(out, backend) if factor in attention else None
                stages.append(Stage(block(self.skip_channels[-1], out), attends))
                self.skip_channels.append(out)
            self.levels.append(stages)
        self.out_channels = out
        attends = RescaledAttention(out, backend)
        self.middle = nn.ModuleList([Stage(block(out, out), attends), Stage(block(out, out), None)])

    def forward(self, x: Images, emb: Tensor) -> tuple[list[Tensor], Tensor]:
        """Outputs of the input convolution, of every stage and of every halving; and of the middle."""
        shown = as_inputs(x)[0]
        check_size(shown, self.factor)
        skips = [self.stem(x)]
        for level, stages in enumerate(self.levels):
            if level:
                shown = HALF * (self.pyramid[level - 1](shown) + self.downs[level - 1](skips[-1], emb))
                skips.append(shown)
            for stage in stages:
                skips.append(stage(skips[-1], emb))
        middle = skips[-1]
        for stage in self.middle:
            middle = stage(middle, emb)
        return skips, middle


class NCSNpp(nn.Module):
    """``F(x, log sigma, y)``, ``(B, C, H, W) -> (B, C, H, W)``; zero everywhere at the start.

    The published network answers ``score = F / sigma`` of images in [0, 1], which it maps to [-1, 1] first. Our images
    are there already, with a ``sigma`` twice as large, so that the division cancels in ``-sigma score``: the raw ``F``
    is trained as the noise ``eps``. Published weights give ``-eps``; the sign goes into those of the last convolution.

    Defaults are those of (a) for digits; 8 blocks are the deep network of Song et al. for CIFAR-10. Labels,
    where there are any, are embedded and added to the noise level, and set scale and shift of the second norm of each
    block, as we read (d).

    Args:
        in_channels: Channels of the images.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level and direction; one more on the way up.
        attention: Down-factors of the levels with attention, beside the middle.
        dropout: Share of activations dropped in residual blocks.
        classes: Number of classes ``K``, or None for a network that labels do not reach.
        fourier_scale: Standard deviation of the frequencies of ``log sigma``, in turns per nat.
        sigma_unit: One unit of the published ``sigma``, in units of ours.
        backend: How attention is computed; losses with second derivatives need ``plain``.

    Raises:
        ValueError: As ``ProgressiveEncoder``.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 4,
        attention: Sequence[PositiveInt] = (2,),
        dropout: ClosedUnitInterval = 0.1,
        classes: PositiveInt | None = None,
        fourier_scale: PositiveFloat = 16.0,
        sigma_unit: PositiveFloat = 2.0,
        backend: Backend = "plain",
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        embedding = 4 * width
        self.noise = FourierEmbedding(width, embedding, fourier_scale, sigma_unit)
        self.label = None if classes is None else nn.Embedding(classes + 1, embedding)
        block = partial(BigGANBlock, embedding=embedding, dropout=dropout, film=classes is not None)
        levels = (width, multipliers, blocks, attention, block)
        self.encoder = ProgressiveEncoder(in_channels, *levels, backend)
        attend = partial(RescaledAttention, backend=backend)
        self.decoder = Decoder(
            self.encoder.skip_channels, *levels, attend, in_channels, "residual", eps=EPS, attends="once"
        )

    def embed(self, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """Activated embedding of noise level and class, ``(B, E)``; no label is a class of its own, index ``K``."""
        emb = self.noise(log_sigma)
        if self.label is not None:
            emb = emb + self.label(class_index(y, self.classes, like=log_sigma))
        return F.silu(emb)

    def forward(self, x: Tensor, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """Output for log noise levels ``(B,)`` and labels ``(B,)``; labels are ignored without ``classes``."""
        emb = self.embed(log_sigma, y)
        return self.decoder(*self.encoder(x, emb), emb)
