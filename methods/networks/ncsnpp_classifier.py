"""The encoder half of NCSN++ as a classifier of noisy images."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import (
    AttentionPool,
    Backend,
    Images,
    Logits,
    NormAct,
    as_inputs,
    head_count,
    near_zero,
)
from methods.networks.ncsnpp import EPS, BigGANBlock, FourierEmbedding, ProgressiveEncoder


class NCSNppEncoderClassifier(nn.Module):
    """Encoder of NCSN++, group norm, SiLU, attention pool, linear: ``(x, log sigma) -> logits``.

    It is told the noise level as the score network is.

    Source: (d), which takes the encoder half of NCSN++ in the manner of Dhariwal and Nichol 2021 (arXiv:2105.05233),
    Sec. 4.1, and says no more of the head.

    Args:
        in_channels: Channels of the images.
        classes: Number of classes ``K``.
        image_size: Side of the images in pixels.
        width: Channels of the first level.
        multipliers: Channels of each level over ``width``; each level has half the resolution of the one before.
        blocks: Residual blocks per level.
        attention: Down-factors of the levels with attention, beside the middle.
        head_channels: Channels per head of the pool; layers of fewer have one head.
        dropout: Share of activations dropped in residual blocks.
        fourier_scale: As in ``NCSNpp``; so is ``sigma_unit``.
        data_std: Standard deviation of the pixels: divide images by ``sqrt(data_std^2 + sigma^2)`` first. Without it
            the network reads images of noise levels up to 100 as they are, and its energy is hard to calibrate.
        inputs: Image batches per call; weights of all but the first start near zero.
        backend: How attention is computed; losses with second derivatives need ``plain``.

    Raises:
        ValueError: As ``ProgressiveEncoder``; if ``image_size`` cannot be halved so often; on images of another size.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        classes: PositiveInt,
        image_size: PositiveInt,
        width: PositiveInt = 128,
        multipliers: Sequence[PositiveInt] = (1, 2, 2, 2),
        blocks: PositiveInt = 4,
        attention: Sequence[PositiveInt] = (2,),
        head_channels: PositiveInt = 64,
        dropout: ClosedUnitInterval = 0.1,
        fourier_scale: PositiveFloat = 16.0,
        sigma_unit: PositiveFloat = 2.0,
        data_std: PositiveFloat | None = None,
        inputs: PositiveInt = 1,
        backend: Backend = "plain",
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.image_size, self.data_std = in_channels, classes, image_size, data_std
        self.noise = FourierEmbedding(width, 4 * width, fourier_scale, sigma_unit)
        block = partial(BigGANBlock, embedding=4 * width, dropout=dropout)
        self.encoder = ProgressiveEncoder(in_channels, width, multipliers, blocks, attention, block, backend, inputs)
        channels, factor = self.encoder.out_channels, self.encoder.factor
        if image_size % factor:
            raise ValueError(f"image_size must be a multiple of {factor}, got {image_size}")
        self.norm = NormAct(channels, eps=EPS)
        self.pool = AttentionPool(image_size // factor, channels, head_count(channels, head_channels), backend)
        self.head = Logits(channels, classes)
        near_zero(self.encoder.stem.convs[1:])

    def features(self, x: Images, log_sigma: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``, ``D`` the channels of the lowest level."""
        x = as_inputs(x)
        if x[0].shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"images must have sides of {self.image_size} pixels, got {tuple(x[0].shape[2:])}")
        if self.data_std is not None:
            scale = torch.rsqrt(self.data_std**2 + torch.exp(2 * log_sigma))[:, None, None, None]
            x = [scale * image for image in x]
        _, middle = self.encoder(x, F.silu(self.noise(log_sigma)))
        return self.pool(self.norm(middle))

    def forward(self, x: Images, log_sigma: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))
