"""Classifiers of the noise level: networks of images, and of labels, that are not told how noisy the images are."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.ddpm_unet import LabelEmbedding, encoder_and_decoder
from methods.networks.layers import Logits, NormAct, SelfAttention, class_index, head_count, zero_init
from methods.networks.unet import Encoder, Resampling, ResidualBlock


class LevelNetwork(nn.Module):
    """``cumsum(linear(trunk(x, y)))``: one logit for each noise level, ``(B, C, H, W) -> (B, levels)``.

    Before the sum, entry 0 models ``log P(0 | x)`` and entry ``t`` models ``log P(t | x) - log P(t - 1 | x)``. The sum
    is computed at least in single precision: logits of images reach thousands of nats, and what matters is their
    differences.

    Source: (c) App. C.1. Departs from it: the linear layer starts at zero, hence at equal logits, where the usual
    initialisation sums to a random walk over the levels.

    Args:
        trunk: ``(x, y) -> (B, D)``, with ``D`` as its attribute ``out_channels``, and ``classes`` if it reads labels.
        levels: Number of noise levels, ``T + 2``.
        norms: Show the linear layer also the mean square of the pixels and its log, which group norms hide from the
            trunk; not in (c).
    """

    def __init__(self, trunk: nn.Module, levels: PositiveInt, norms: bool = False) -> None:
        super().__init__()
        self.trunk, self.levels, self.norms = trunk, levels, norms
        self.classes = getattr(trunk, "classes", None)
        self.head = zero_init(Logits(trunk.out_channels + 2 * norms, levels))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits ``(B, levels)``; without labels, or for ``UNLABELED``, of images of any class."""
        features = self.trunk(x, y)
        if self.norms:
            power = x.square().mean(dim=(1, 2, 3))[:, None]
            features = torch.cat([features, power, torch.log(power + 1e-6)], dim=1)
        steps = self.head(features)
        return torch.cumsum(steps, dim=1, dtype=torch.promote_types(steps.dtype, torch.float32))


class ClassEmbedding(nn.Embedding):
    """Activated embedding of the class, ``(B,) -> (B, E)``; no label is a class of its own, index ``K``."""

    def __init__(self, classes: int, embedding: int) -> None:
        super().__init__(classes + 1, embedding)

    def forward(self, y: Tensor | None, like: Tensor) -> Tensor:
        """Embed labels; ``like`` tells their number where ``y`` gives none."""
        return F.silu(super().forward(class_index(y, self.num_embeddings - 1, like)))


class EncoderTrunk(nn.Module):
    """Encoder of the UNet, norm, SiLU, means over the cells of a grid: ``(x, y) -> (B, out_channels)``.

    Without a noise embedding; the class, where there is one, sets scale and shift in every residual block. Attention
    is plain, because the losses differentiate input gradients.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level.
        attention: Down-factors of the levels with attention, beside the middle.
        head_channels: Channels per attention head; layers of fewer have one head. None for no attention at all.
        dropout: Share of activations dropped in residual blocks.
        classes: Number of classes ``K``, or None for a network that labels do not reach.
        resampling: How the resolution is halved.
        grid: Cells on a side of the grid; 1 averages all pixels of the lowest level, its resolution reads each.

    Raises:
        ValueError: As ``Encoder``.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 2,
        attention: Sequence[PositiveInt] = (2,),
        head_channels: PositiveInt | None = 64,
        dropout: ClosedUnitInterval = 0.0,
        classes: PositiveInt | None = None,
        resampling: Resampling = "conv",
        grid: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.grid = in_channels, classes, grid
        self.label = None if classes is None else ClassEmbedding(classes, 4 * width)
        self.encoder = Encoder(
            in_channels,
            width,
            multipliers,
            blocks,
            attention,
            block=partial(ResidualBlock, embedding=None if classes is None else 4 * width, dropout=dropout),
            attend=lambda c: SelfAttention(c, head_count(c, head_channels)) if head_channels else nn.Identity(),
            resampling=resampling,
        )
        self.out_channels = self.encoder.out_channels * grid**2
        self.norm = NormAct(self.encoder.out_channels)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        _, middle = self.encoder(x, None if self.label is None else self.label(y, x))
        found = self.norm(middle)
        return found.mean(dim=(2, 3)) if self.grid == 1 else F.adaptive_avg_pool2d(found, self.grid).flatten(1)


class UNetTrunk(nn.Module):
    """UNet whose last convolution has ``out_channels``, then the mean over the pixels: ``(x, y) -> (B, out_channels)``.

    The UNet of DDPM without its time; the class, where there is one, takes its place in every residual block.
    Attention is plain, because the losses differentiate input gradients.

    Source: (c) App. C.1.

    Args:
        in_channels: Channels of the images.
        out_channels: Features; 512 for CIFAR-10, 1024 for CelebA in (c), 256 in its code.
        width: As in ``DDPMUNet``; so are ``multipliers`` to ``classes``.

    Raises:
        ValueError: As ``Encoder``.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        out_channels: PositiveInt = 512,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 2,
        attention: Sequence[PositiveInt] = (2,),
        dropout: ClosedUnitInterval = 0.1,
        classes: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.classes = in_channels, out_channels, classes
        embedding = None if classes is None else 4 * width
        self.label = None if classes is None else LabelEmbedding(classes, width, 4 * width)
        self.encoder, self.decoder = encoder_and_decoder(
            in_channels, out_channels, width, multipliers, blocks, attention, embedding, dropout
        )
        self.decoder.out.reset_parameters()  # features that start at zero, under a head that does, would stay there

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        emb = None if self.label is None else F.silu(self.label(y, like=x))
        return self.decoder(*self.encoder(x, emb), emb).mean(dim=(2, 3))
