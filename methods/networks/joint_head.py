"""The classifier head of joint diffusion models."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Logits


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
