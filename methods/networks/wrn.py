"""Wide residual network, told the noise level: the classifier of (a)."""

import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from methods.networks.layers import (
    Activation,
    Images,
    Logits,
    NoiseEmbedding,
    NormAct,
    Stem,
    as_inputs,
    check_size,
    downsample,
    standardise,
)


class WideBlock(nn.Module):
    """``shortcut(x) + conv(act(norm(conv(act(norm(x))) + time)))``; the shortcut has no weights.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        halve: Halve the resolution.
        embedding: Width of the noise embedding; None for a network that is not told.
        activation: Non-linearity.
        activate_first: The shortcut starts after the first norm and activation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        halve: bool,
        embedding: int | None,
        activation: Activation,
        activate_first: bool,
    ) -> None:
        super().__init__()
        self.halve, self.added, self.activate_first = halve, channels - in_channels, activate_first
        self.norm_in = NormAct(in_channels, activation)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, stride=1 + halve, padding=1, bias=False)
        self.time = None if embedding is None else nn.Linear(embedding, channels)
        self.norm_out = NormAct(channels, activation)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.norm_in(x)
        x = self.shortcut(h if self.activate_first else x)
        h = self.conv_in(h)
        if self.time is not None:
            h = h + self.time(emb)[..., None, None]
        return x + self.conv_out(self.norm_out(h))

    def shortcut(self, x: Tensor) -> Tensor:
        """Mean of four pixels where the block halves, zeros for the channels that it adds."""
        x = downsample(x) if self.halve else x
        return F.pad(x, (0, 0, 0, 0, 0, self.added)) if self.added else x


class WideResNet(nn.Module):
    """WRN-``depth``-``width`` with group norm, a weightless shortcut and an additive noise embedding per block.

    Three groups of ``16 width``, ``32 width`` and ``64 width`` channels; the second and third halve the resolution.
    Group norm, because a batch mixes noise levels; standardised images, because those differ in scale by thousands.

    Source: Zagoruyko and Komodakis 2016 (arXiv:1605.07146); noise as in Song et al. 2021 (arXiv:2011.13456), App. I,
    with a light embedding that gives the 1.5 M weights which (a) states.

    Args:
        in_channels: Channels of the images.
        classes: Number of classes ``K``.
        depth: Convolutions on the longest path, ``6 n + 4``.
        width: Widening factor.
        frequencies: Frequencies that ``log sigma`` is embedded with.
        embedding: Width of the noise embedding.
        activation: ``relu`` has a piecewise constant input gradient; ``silu`` for losses that differentiate it.
        standardise: Bring each image to mean 0 and standard deviation 1 first.
        inputs: Image batches per call, standardised one by one and summed after a convolution each.
        noise: Whether the network is told the noise level; a classifier of clean images is not.

    Raises:
        ValueError: If ``depth`` is no ``6 n + 4``; on images whose sides are no multiples of 4; on a noise level
            that is missing or not wanted.
    """

    def __init__(
        self,
        in_channels: PositiveInt,
        classes: PositiveInt,
        depth: PositiveInt = 28,
        width: PositiveInt = 2,
        frequencies: PositiveInt = 16,
        embedding: PositiveInt = 64,
        activation: Activation = "silu",
        standardise: bool = True,
        inputs: PositiveInt = 1,
        noise: bool = True,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 10, 16, 22, 28, ... (6 n + 4), got {depth}")
        self.in_channels, self.classes, self.standardise = in_channels, classes, standardise
        self.noise = NoiseEmbedding(frequencies, embedding) if noise else None
        self.stem = Stem(in_channels, 16, inputs, bias=False)
        self.blocks = nn.ModuleList()
        last = 16
        for group in range(3):
            channels = 16 * width * 2**group
            for block in range((depth - 4) // 6):
                first, halve = not self.blocks, group > 0 and block == 0
                told = embedding if noise else None
                self.blocks.append(WideBlock(last, channels, halve, told, activation, activate_first=first))
                last = channels
        self.norm = NormAct(last, activation)
        self.head = Logits(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Images, log_sigma: Tensor | None = None) -> Tensor:
        """Penultimate vector ``(B, 64 width)``."""
        if (log_sigma is None) != (self.noise is None):
            told = "takes no log_sigma" if self.noise is None else "needs log_sigma"
            raise ValueError(f"this network {told}; it was built with noise={self.noise is not None}")
        x = as_inputs(x)
        check_size(x[0], 4)
        h = self.stem([standardise(image) for image in x] if self.standardise else x)
        emb = None if self.noise is None else F.silu(self.noise(log_sigma))
        for block in self.blocks:
            h = block(h, emb)
        return self.norm(h).mean(dim=(2, 3))

    def forward(self, x: Images, log_sigma: Tensor | None = None) -> Tensor:
        """Logits ``(B, K)``."""
        return self.head(self.features(x, log_sigma))
