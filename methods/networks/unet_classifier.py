"""A whole UNet as a classifier of noisy images: every pixel reaches the logits along the skips too."""

import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.networks.layers import Logits
from methods.networks.unet import UNet


class UNetClassifier(nn.Module):
    """``linear(silu(sum over pixels of UNet(x, log sigma)))``, ``(B, C, H, W) -> (B, K)``, for a denoiser's gradients.

    The sum is divided by the root of the number of pixels. Source: arXiv:2304.02012, official code, with attention in
    the place of the sum.

    Args:
        network: UNet without classes, whose ``out_channels`` are the features.
        classes: Number of classes ``K``.
    """

    def __init__(self, network: UNet, classes: PositiveInt) -> None:
        super().__init__()
        self.network, self.in_channels, self.classes = network, network.in_channels, classes
        network.decoder.out.reset_parameters()  # features that start at zero have no gradient in the image
        self.head = Logits(network.out_channels, classes)

    def features(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """Penultimate vector ``(B, out_channels)``."""
        pixels = self.network(x, log_sigma).flatten(2)
        return F.silu(pixels.sum(2) / pixels.shape[2] ** 0.5)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))
