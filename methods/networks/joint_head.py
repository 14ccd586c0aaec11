"""The classifier head of joint diffusion models, and their encoder with it as a classifier of its own."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Logits
from methods.networks.unet import UNet, pool

FIRST_LEVEL = -4.605
"""Log noise level that (e)'s code tells with clean images: that of DDPM's first step, ``ln(.01)``."""


class JointHead(nn.Module):
    """Two linear layers on pooled features ``r`` and the time: ``(B, D), (B,) -> (B, K)``.

    The time is one more feature, a raw number, whose unit the first batch norm takes away. A head that is trained at
    ``t = 0`` alone sees no variance there, and at any other time a feature far beyond all others.

    Source: (e), official code; dropout comes before each batch norm there.

    Args:
        features: Length ``D`` of the pooled features.
        classes: Number of classes ``K``.
        dropout: Share of the inputs of each linear layer that is dropped.
    """

    def __init__(self, features: PositiveInt, classes: PositiveInt, dropout: ClosedUnitInterval = 0.7) -> None:
        super().__init__()
        hidden = features // 2
        self.dropout = nn.Dropout(dropout)
        self.norm_in, self.linear = nn.BatchNorm1d(features + 1), nn.Linear(features + 1, hidden)
        self.norm_out, self.logits = nn.BatchNorm1d(hidden), Logits(hidden, classes)

    def forward(self, r: Tensor, t: Tensor) -> Tensor:
        h = torch.cat([r, t[:, None].to(r.dtype)], dim=1)
        h = F.leaky_relu(self.linear(self.norm_in(self.dropout(h))), 0.01)
        return self.logits(self.norm_out(self.dropout(h)))


class EncoderHead(nn.Module):
    """Joint diffusion's encoder and head alone, a classifier of clean images: ``(B, C, H, W) -> (B, K)``.

    Source: (e) Sec. 4.1, the stand-alone classifier of the same architecture; ``train_only_classifier`` in the code.

    Args:
        network: UNet whose encoder is taken; its decoder is left out.
        classes: Number of classes ``K``.
        head_dropout: Share dropped before each linear layer of the head.
        log_sigma: Log noise level that the encoder is told.
    """

    def __init__(
        self,
        network: UNet,
        classes: PositiveInt,
        head_dropout: ClosedUnitInterval = 0.7,
        log_sigma: float = FIRST_LEVEL,
    ) -> None:
        super().__init__()
        self.noise, self.encoder, self.log_sigma = network.noise, network.encoder, log_sigma
        self.in_channels, self.classes = network.in_channels, classes
        self.head = JointHead(network.pooled_channels, classes, head_dropout)

    def features(self, x: Tensor) -> Tensor:
        """Pooled maps ``(B, D)``."""
        return pool(*self.encoder(x, F.silu(self.noise(x.new_full((len(x),), self.log_sigma)))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x), x.new_zeros(len(x)))
