"""A classifier of points in the plane."""

from itertools import pairwise

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Logits


class PointClassifier(nn.Module):
    """Perceptron on the coordinates, another on the log noise level, both outputs side by side, linear: logits.

    Layers of 256, 128 and 64 on the coordinates and of 64, 32 and 16 on the noise level, SiLU after each.

    Source: the toy of Chao et al. 2022 (arXiv:2203.14206), official code, with ReLU there; (d) Sec. 5.1 for its use.

    Args:
        in_channels: Coordinates of a point, which is an image ``(C, 1, 1)``.
        classes: Number of classes ``K``.
        noise: Whether the network is told the noise level; a classifier of clean points is not.
        unit: What coordinates are multiplied by first, so that they are of the order of 1 to 10.
    """

    def __init__(self, in_channels: PositiveInt, classes: PositiveInt, noise: bool = True, unit: float = 1.0) -> None:
        super().__init__()
        self.classes, self.unit = classes, unit
        self.points = perceptron(in_channels, 256, 128, 64)
        self.noise = perceptron(1, 64, 32, 16) if noise else None
        self.head = Logits(64 + 16 * noise, classes)

    def features(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Penultimate vector ``(B, D)``.

        Raises:
            ValueError: If a noise level is missing or not wanted.
        """
        if (log_sigma is None) != (self.noise is None):
            raise ValueError(f"this network was built with noise={self.noise is not None}")
        parts = [self.points(self.unit * x.flatten(1))]
        if self.noise is not None:
            parts.append(self.noise(log_sigma[:, None]))
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers between these widths, SiLU after each."""
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
