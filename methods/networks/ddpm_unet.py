"""UNet of DDPM, told the noise level as a step of its table; (c) compares with it and builds on it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Backend, NormAct, SelfAttention, class_index, zero_init
from methods.networks.steps import StepEmbedding
from methods.networks.unet import Decoder, Encoder

EPS = 1e-6
"""Epsilon of every group norm."""


class LabelEmbedding(nn.Module):
    """``Embedding -> Linear -> SiLU -> Linear`` of the class, ``(B,) -> (B, E)``; no label is index ``K``.

    Source: (c), official code.
    """

    def __init__(self, classes: int, width: int, embedding: int) -> None:
        super().__init__()
        self.classes, self.table = classes, nn.Embedding(classes + 1, width)
        self.layers = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, y: Tensor | None, like: Tensor) -> Tensor:
        """Embed labels; ``like`` tells their number where ``y`` gives none."""
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
        self.noise = StepEmbedding(width // 2, embedding, steps)
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
