"""A classifier of points in the plane."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Logits

FREQUENCIES = (0.25, 0.5, 1.0, 2.0)
"""Frequencies of the sines and cosines of the log noise level; their periods are 25 to 3 in its natural logarithm."""


class PointClassifier(nn.Module):
    """Perceptron on the scaled coordinates and on sines and cosines of the log noise level, SiLU after each layer.

    Coordinates are divided by ``sqrt(data_std^2 + sigma^2)``, the root of their mean square at that level. Every layer
    reads coordinates and level together: the gradient in the coordinates, up to ``1 / sigma`` in size, can differ
    between levels. A network that joins the two in its last layer alone has the same gradient at all of them.

    Args:
        in_channels: Coordinates of a point, which is an image ``(C, 1, 1)``.
        classes: Number of classes ``K``.
        noise: Whether the network is told the noise level; a classifier of clean points is not.
        data_std: Standard deviation of a coordinate, in the unit of the images.
        widths: Widths of the layers.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        classes: PositiveInt,
        noise: bool = True,
        data_std: PositiveFloat = 0.5,
        widths: Sequence[PositiveInt] = (256, 128, 64),
    ) -> None:
        super().__init__()
        self.classes, self.noise, self.data_std = classes, noise, data_std
        self.register_buffer("frequencies", torch.tensor(FREQUENCIES), persistent=False)
        self.body = perceptron(in_channels + 2 * len(FREQUENCIES) * noise, *widths)
        self.head = Logits(widths[-1], classes)

    def features(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Penultimate vector ``(B, D)``.

        Raises:
            ValueError: If a noise level is missing or not wanted.
        """
        if (log_sigma is not None) != self.noise:
            raise ValueError(f"this network was built with noise={self.noise}")
        if log_sigma is None:
            return self.body(x.flatten(1) / self.data_std)
        log_sigma = log_sigma[:, None]
        angle = log_sigma * self.frequencies
        points = x.flatten(1) * torch.rsqrt(self.data_std**2 + torch.exp(2 * log_sigma))
        return self.body(torch.cat([points, angle.sin(), angle.cos()], dim=1))

    def forward(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers between these widths, SiLU after each."""
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.SiLU())))
