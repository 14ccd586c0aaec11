"""UNet of guided diffusion, in an encoder and a decoder that other networks share.

Source: Dhariwal and Nichol 2021 (arXiv:2105.05233); (e) uses it with one classifier on the encoder's features.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import (
    Backend,
    Images,
    NoiseEmbedding,
    NormAct,
    SelfAttention,
    Stem,
    TellNoise,
    as_inputs,
    check_size,
    class_index,
    downsample,
    head_count,
    upsample,
    zero_init,
)

Resampling = Literal["conv", "residual"]
"""Change of resolution by one convolution, or by a residual block of which both branches are resampled."""

RESAMPLE = {"up": upsample, "down": downsample}


class ResidualBlock(nn.Module):
    """``skip(x) + conv(dropout(act(film(norm(conv(act(norm(x))))))))``; the last convolution starts at zero.

    Scale and shift of the second norm are linear in the embedding.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        embedding: Width of the embedding; None for a block that is told nothing.
        dropout: Share of activations dropped.
        resample: Double or halve the resolution of both branches.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding: int | None,
        dropout: float = 0.0,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__()
        self.resample = RESAMPLE[resample] if resample else nn.Identity()
        self.norm_in = NormAct(in_channels)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.film = None if embedding is None else nn.Linear(embedding, 2 * channels)
        self.norm_out = NormAct(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.conv_in(self.resample(self.norm_in(x)))
        film = () if self.film is None else self.film(emb)[..., None, None].chunk(2, dim=1)
        return self.skip(self.resample(x)) + self.conv_out(self.dropout(self.norm_out(h, *film)))


class Down(nn.Conv2d):
    """Halved resolution by a learned convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(x)


class Up(nn.Conv2d):
    """Doubled resolution: nearest pixel, then a learned convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(upsample(x))


class Stage(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, block: nn.Module, attend: nn.Module | None) -> None:
        super().__init__()
        self.block, self.attend = block, attend

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.block(x, emb)
        return h if self.attend is None else self.attend(h)


class Encoder(nn.Module):
    """Input convolution, levels of ``blocks`` stages with a halving between levels, and the middle at the lowest.

    Args:
        in_channels: Channels of the images.
        width: Channels of the input convolution, and unit of ``multipliers``.
        multipliers: Channels of each level over ``width``, from full resolution down.
        blocks: Stages per level.
        attention: Down-factors of the levels with attention, e.g. 2 for 16 px of images of 32 px.
        block: ``(in_channels, channels) -> ResidualBlock``, or another map ``(x, emb)``; takes ``resample`` too, where
            ``resampling`` is ``residual``.
        attend: ``channels -> SelfAttention``.
        resampling: How the resolution is halved.
        inputs: Image batches per call, summed after a convolution each.
        down: ``channels -> Down``: the convolution that halves, where ``resampling`` is ``conv``.

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
        block: Callable[..., nn.Module],
        attend: Callable[[int], nn.Module],
        resampling: Resampling = "conv",
        inputs: int = 1,
        down: Callable[[int], nn.Module] = Down,
    ) -> None:
        super().__init__()
        factors = [2**level for level in range(len(multipliers))]
        if not set(attention) <= set(factors):
            raise ValueError(f"attention must name down-factors among {factors}, got {list(attention)}")
        self.factor = factors[-1]
        channels = [width * multiplier for multiplier in multipliers]
        self.stem = Stem(in_channels, width, inputs)
        self.stages = nn.ModuleList()
        self.skip_channels = [width]
        for level, (factor, out) in enumerate(zip(factors, channels, strict=True)):
            if level:
                last = self.skip_channels[-1]
                self.stages.append(down(last) if resampling == "conv" else block(last, last, resample="down"))
                self.skip_channels.append(last)
            for _ in range(blocks):
                attends = attend(out) if factor in attention else None
                self.stages.append(Stage(block(self.skip_channels[-1], out), attends))
                self.skip_channels.append(out)
        self.out_channels = channels[-1]
        out = self.out_channels
        self.middle = nn.ModuleList([Stage(block(out, out), attend(out)), Stage(block(out, out), None)])

    def forward(self, x: Images, emb: Tensor) -> tuple[list[Tensor], Tensor]:
        """Outputs of the input convolution, of every stage and of every halving; and of the middle."""
        check_size(as_inputs(x)[0], self.factor)
        skips = [self.stem(x)]
        for stage in self.stages:
            skips.append(stage(skips[-1], emb))
        middle = skips[-1]
        for stage in self.middle:
            middle = stage(middle, emb)
        return skips, middle


class Decoder(nn.Module):
    """The way from the middle up: ``blocks + 1`` stages a level, each on its input and one skip; then the output.

    Args:
        skip_channels: ``Encoder.skip_channels``.
        width: As in ``Encoder``; so are ``multipliers`` to ``resampling``.
        out_channels: Channels of the output, whose convolution starts at zero.
        eps: Of the group norm before it.
        attends: Whether attention follows every stage of its levels, or comes once in a level, after the last.
    """

    def __init__(
        self,
        skip_channels: Sequence[int],
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        block: Callable[..., nn.Module],
        attend: Callable[[int], nn.Module],
        out_channels: int,
        resampling: Resampling = "conv",
        eps: float = 1e-5,
        attends: Literal["always", "once"] = "always",
    ) -> None:
        super().__init__()
        skips = list(skip_channels)
        channels = [width * multiplier for multiplier in reversed(multipliers)]
        self.levels = nn.ModuleList()
        h = channels[0]
        for level, out in enumerate(channels):
            attended = 2 ** (len(channels) - 1 - level) in attention
            stages = nn.ModuleList()
            for stage in range(blocks + 1):
                follows = attended and (attends == "always" or stage == blocks)
                stages.append(Stage(block(h + skips.pop(), out), attend(out) if follows else None))
                h = out
            self.levels.append(stages)
        self.ups = nn.ModuleList(
            Up(c) if resampling == "conv" else block(c, c, resample="up") for c, _ in pairwise(channels)
        )
        self.norm = NormAct(h, eps=eps)
        self.out = zero_init(nn.Conv2d(h, out_channels, 3, padding=1))

    def forward(self, skips: Sequence[Tensor], middle: Tensor, emb: Tensor) -> Tensor:
        skips, h = list(skips), middle
        for level, stages in enumerate(self.levels):
            if level:
                h = self.ups[level - 1](h, emb)
            for stage in stages:
                h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(self.norm(h))


class UNet(nn.Module):
    """``F(x, log sigma, y)``, ``(B, C, H, W) -> (B, out_channels, H, W)``; zero everywhere at the start.

    Defaults are those of (e) for CIFAR-10. Noise level and class set scale and shift of every residual block.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level and direction; one more on the way up.
        attention: Down-factors of the levels with attention, beside the middle.
        heads: Attention heads.
        dropout: Share of activations dropped in residual blocks.
        classes: Number of classes ``K``, or None for a network that labels do not reach.
        out_channels: Channels of the output; those of the images by default.
        resampling: How the resolution changes.
        backend: How attention is computed; losses with second derivatives need ``plain``.
        noise: How the noise level is told; published weights need ``steps.GuidedStepEmbedding``.
        head_channels: Channels per attention head, in place of ``heads``: 64 in guided diffusion's for ImageNet.

    Raises:
        ValueError: As ``Encoder`` and ``SelfAttention``.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 3,
        attention: Sequence[PositiveInt] = (2, 4),
        heads: PositiveInt = 4,
        dropout: ClosedUnitInterval = 0.0,
        classes: PositiveInt | None = None,
        out_channels: PositiveInt | None = None,
        resampling: Resampling = "conv",
        backend: Backend = "plain",
        noise: TellNoise = NoiseEmbedding,
        head_channels: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.out_channels = in_channels if out_channels is None else out_channels
        embedding = 4 * width
        self.noise = noise(width // 2, embedding)
        self.label = None if classes is None else nn.Embedding(classes + 1, embedding)
        block = partial(ResidualBlock, embedding=embedding, dropout=dropout)

        def attend(channels: int) -> SelfAttention:
            return SelfAttention(channels, head_count(channels, head_channels) if head_channels else heads, backend)

        levels = (width, multipliers, blocks, attention, block, attend)
        self.encoder = Encoder(in_channels, *levels, resampling)
        self.decoder = Decoder(self.encoder.skip_channels, *levels, self.out_channels, resampling)

    @property
    def pooled_channels(self) -> int:
        """Length of ``pool(skips, middle)``."""
        return sum(self.encoder.skip_channels) + self.encoder.out_channels

    def embed(self, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """Activated embedding of noise level and class, ``(B, E)``; no label is a class of its own, index ``K``."""
        emb = self.noise(log_sigma)
        if self.label is not None:
            emb = emb + self.label(class_index(y, self.classes, like=log_sigma))
        return F.silu(emb)

    def encode(self, x: Tensor, log_sigma: Tensor, y: Tensor | None = None) -> tuple[list[Tensor], Tensor, Tensor]:
        """Skips, middle and the embedding: all that ``decode`` reads."""
        emb = self.embed(log_sigma, y)
        return *self.encoder(x, emb), emb

    def features(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """Pooled maps ``(B, D)``, see ``pool``."""
        skips, middle, _ = self.encode(x, log_sigma)
        return pool(skips, middle)

    def decode(self, skips: Sequence[Tensor], middle: Tensor, emb: Tensor) -> Tensor:
        """Output ``(B, out_channels, H, W)`` from what ``encode`` answered."""
        return self.decoder(skips, middle, emb)

    def forward(self, x: Tensor, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        """Output for log noise levels ``(B,)`` and labels ``(B,)``; labels are ignored without ``classes``."""
        return self.decode(*self.encode(x, log_sigma, y))


def pool(skips: Sequence[Tensor], middle: Tensor) -> Tensor:
    """Spatial means of the middle and then of each skip in order, concatenated, ``(B, D)``. Source: (e)."""
    return torch.cat([h.mean(dim=(2, 3)) for h in (middle, *skips)], dim=1)
