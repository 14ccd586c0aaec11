"""Change of resolution under the low-pass filter [1, 3, 3, 1], by plain depthwise convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fir(nn.Module):
    """The filter ``f f^T / 64`` with ``f = [1, 3, 3, 1]``, a copy for each channel; constant and in no checkpoint.

    Pixels outside the image are zero: what is constant stays so except near the border.

    Source: Karras et al. 2020 (arXiv:1912.04958), App. B; used so by Song et al. 2021 (arXiv:2011.13456), App. H.

    Args:
        channels: Channels of the images.
        gain: Factor of the filter.
    """

    kernel: Tensor

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        kernel = gain * torch.outer(taps, taps)
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)


class FirDown(Fir):
    """Filter, then every second pixel: ``(B, C, H, W) -> (B, C, H / 2, W / 2)``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])


class FirUp(Fir):
    """Zeros between the pixels, then four times the filter: ``(B, C, H, W) -> (B, C, 2 H, 2 W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])


class FirConv(Fir):
    """Filter, then a learned 3x3 convolution of stride 2: ``(B, C, H, W) -> (B, channels, H / 2, W / 2)``.

    Padded once, before both.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels)
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.conv2d(x, self.kernel, padding=2, groups=x.shape[1]))
