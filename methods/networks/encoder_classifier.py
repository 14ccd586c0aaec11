"""The encoder half of the UNet as a classifier of noisy images."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import (
    AttentionPool,
    Backend,
    Images,
    Logits,
    NoiseEmbedding,
    NormAct,
    SelfAttention,
    TellNoise,
    as_inputs,
    head_count,
    near_zero,
    standardise,
)
from methods.networks.unet import Encoder, Resampling, ResidualBlock


class EncoderClassifier(nn.Module):
    """Encoder, group norm, SiLU, pool, linear: ``(x, log sigma) -> logits``.

    A second input, such as ``x_hat`` of (a), enters through a convolution that starts near zero, so that a trained
    network of one input can be extended.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), Sec. 4.1.

    Args:
        in_channels: Channels of the images.
        classes: Number of classes ``K``.
        image_size: Side of the images in pixels.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level.
        attention: Down-factors of the levels with attention, beside the middle.
        head_channels: Channels per attention head, in the pool too; layers of fewer have one head.
        dropout: Share of activations dropped in residual blocks.
        inputs: Image batches per call.
        resampling: How the resolution is halved.
        standardise: Bring each image to mean 0 and standard deviation 1 first; for processes whose images grow.
        data_std: Standard deviation of the pixels: divide images by ``sqrt(data_std^2 + sigma^2)`` first, which keeps
            what ``standardise`` hides, their norms; for processes whose images grow.
        pool: How the lowest level becomes a vector: what the mean of all pixels attends to, or all pixels.
        backend: How attention is computed; losses with second derivatives need ``plain``.
        noise: How the noise level is told; published weights need ``steps.GuidedStepEmbedding``.

    Raises:
        ValueError: As ``Encoder``; if ``image_size`` cannot be halved so often; if both ``standardise`` and
            ``data_std`` are given; on images of another size.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        classes: PositiveInt,
        image_size: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 2,
        attention: Sequence[PositiveInt] = (1, 2, 4),
        head_channels: PositiveInt = 64,
        dropout: ClosedUnitInterval = 0.0,
        inputs: PositiveInt = 1,
        resampling: Resampling = "residual",
        standardise: bool = False,
        data_std: PositiveFloat | None = None,
        pool: Literal["attention", "flatten"] = "attention",
        backend: Backend = "plain",
        noise: TellNoise = NoiseEmbedding,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.image_size = in_channels, classes, image_size
        self.blocks, self.head_channels = blocks, head_channels
        if standardise and data_std is not None:
            raise ValueError("standardise hides the norms that data_std keeps; give one of the two")
        self.standardise, self.data_std = standardise, data_std
        embedding = 4 * width
        self.noise = noise(width // 2, embedding)
        self.encoder = Encoder(
            in_channels,
            width,
            multipliers,
            blocks,
            attention,
            block=partial(ResidualBlock, embedding=embedding, dropout=dropout),
            attend=lambda channels: SelfAttention(channels, head_count(channels, head_channels), backend),
            resampling=resampling,
            inputs=inputs,
        )
        channels, factor = self.encoder.out_channels, self.encoder.factor
        if image_size % factor:
            raise ValueError(f"image_size must be a multiple of {factor}, got {image_size}")
        side = image_size // factor
        self.norm = NormAct(channels)
        if pool == "attention":
            self.pool = AttentionPool(side, channels, head_count(channels, head_channels), backend)
        else:
            self.pool = nn.Flatten()
        self.head = Logits(channels if pool == "attention" else channels * side**2, classes)
        near_zero(self.encoder.stem.convs[1:])

    def features(self, x: Images, log_sigma: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``, ``D`` the channels of the lowest level, times its pixels if flattened."""
        x = as_inputs(x)
        if x[0].shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"images must have sides of {self.image_size} pixels, got {tuple(x[0].shape[2:])}")
        emb = F.silu(self.noise(log_sigma))
        if self.standardise:
            x = [standardise(image) for image in x]
        elif self.data_std is not None:
            scale = torch.rsqrt(self.data_std**2 + torch.exp(2 * log_sigma))[:, None, None, None]
            x = [scale * image for image in x]
        _, middle = self.encoder(x, emb)
        return self.pool(self.norm(middle))

    def forward(self, x: Images, log_sigma: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))
