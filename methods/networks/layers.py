"""Pieces that the networks share. All keep the memory layout of their input and have second derivatives."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from methods import UNLABELED

Activation = Literal["silu", "relu"]
Backend = Literal["plain", "sdpa"]
"""Implementation of attention; ``sdpa`` is fused and faster on GPUs, and has no second derivative."""

Images = Tensor | Sequence[Tensor]
"""A batch ``(B, C, H, W)``, or several views of the same batch, e.g. ``(x_t, x_hat)``."""

TellNoise = Callable[[int, int], nn.Module]
"""``(frequencies, embedding) -> module`` that embeds ``log sigma``, ``(B,) -> (B, embedding)``."""

ACTIVATIONS = {"silu": F.silu, "relu": F.relu}


def zero_init(module: nn.Module) -> nn.Module:
    """The module with all its parameters set to zero, so that the branch it closes starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Group norm of ``min(channels / 4, 32)`` groups, or of the next smaller number that divides ``channels``."""
    most = max(1, min(channels // 4, 32))
    groups = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps)


class NormAct(nn.Module):
    """``act((1 + scale) norm(x) + shift)``: the one place where norms meet activations."""

    def __init__(self, channels: int, activation: Activation = "silu", eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = group_norm(channels, eps)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        return self.activation(h if scale is None else torch.addcmul(shift, h, 1 + scale))


class NoiseEmbedding(nn.Module):
    """Sines and cosines of ``log sigma``, then ``Linear -> SiLU -> Linear``: ``(B,) -> (B, E)``.

    Angular frequencies are geometric from 1/8 to 32 per nat: the slowest sine is monotone over ``|log sigma| <= 12``,
    the fastest tells apart levels that differ by a tenth of a nat.

    Departs from arXiv:2011.13456 (random frequencies, about 100 per nat), which leaves a handful of frequencies
    nothing smooth to interpolate with.

    Args:
        frequencies: Number of frequencies.
        embedding: Width ``E``.
    """

    def __init__(self, frequencies: int, embedding: int) -> None:
        super().__init__()
        exponents = torch.linspace(math.log2(1 / 8), math.log2(32), frequencies)
        self.register_buffer("frequencies", torch.exp2(exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, log_sigma: Tensor) -> Tensor:
        phase = log_sigma[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


def class_index(y: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """Rows of a table of ``classes + 1`` embeddings, ``(B,)``, for the batch ``like``: no label has the last one."""
    null = torch.full((len(like),), classes, device=like.device)
    return null if y is None else torch.where(y == UNLABELED, null, y)


def attention(q: Tensor, k: Tensor, v: Tensor, backend: Backend = "plain") -> Tensor:
    """``softmax(q k^T / sqrt(D)) v`` of tensors ``(B, heads, N, D)``."""
    if backend == "sdpa":
        return F.scaled_dot_product_attention(q, k, v)
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1)
    return (v.mT @ weights.mT).mT  # laid out (B, heads, D, N), which is images as they come


def head_count(channels: int, head_channels: int) -> int:
    """Heads of about ``head_channels`` channels: the largest number not above it that divides ``channels``."""
    most = max(1, channels // head_channels)
    return next(n for n in range(most, 0, -1) if channels % n == 0)


class SelfAttention(nn.Module):
    """``x + proj(attention(norm(x)))`` over the pixels of ``(B, C, H, W)``; zero at the start.

    The channels of the fused q, k, v are ordered (head, part, channel), as in the weights of arXiv:2105.05233.

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, heads: int = 1, backend: Backend = "plain", eps: float = 1e-5) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the {channels} channels of an attention layer, got {heads}")
        self.heads, self.backend = heads, backend
        self.norm = group_norm(channels, eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b (heads three d) h w -> three b heads (h w) d", heads=self.heads, three=3).unbind()
        h = rearrange(attention(q, k, v, self.backend), "b heads (h w) d -> b (heads d) h w", h=x.shape[2])
        return x + self.proj(h.contiguous(memory_format=layout(x)))


class AttentionPool(nn.Module):
    """Attention of the mean of all pixels to the pixels: ``(B, C, S, S) -> (B, C)``.

    Tokens are the mean over positions and all positions, plus a learned embedding of the position.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), the pooling of the noisy classifier.
    """

    def __init__(self, size: int, channels: int, heads: int, backend: Backend = "plain") -> None:
        super().__init__()
        self.heads, self.backend = heads, backend
        self.positions = nn.Parameter(torch.randn(size**2 + 1, channels) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(x, "b c h w -> b (h w) c")
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.positions
        qkv = self.qkv(tokens)
        q, k, v = rearrange(qkv, "b n (heads three d) -> three b heads n d", heads=self.heads, three=3).unbind()
        return attention(q[:, :, :1], k, v, self.backend).flatten(1)


class Logits(nn.Linear):
    """Linear map in the precision of its weights, under autocast too: what is small in a logit matters."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Stem(nn.Module):
    """Sum of one 3x3 convolution per input: ``inputs`` times ``(B, C, H, W)`` to ``(B, channels, H, W)``.

    Raises:
        ValueError: On a call with another number of inputs.
    """

    def __init__(self, in_channels: int, channels: int, inputs: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias) for _ in range(inputs))

    def forward(self, x: Images) -> Tensor:
        x = as_inputs(x)
        if len(x) != len(self.convs):
            raise ValueError(f"this network takes {len(self.convs)} image batches, got {len(x)}")
        first, *others = (conv(image) for conv, image in zip(self.convs, x, strict=True))
        return sum(others, start=first)


def near_zero(convs: Iterable[nn.Module]) -> None:
    """Draw weights of standard deviation 1e-4 and set biases to zero: further inputs that hardly count at the start."""
    for conv in convs:
        nn.init.normal_(conv.weight, std=1e-4)
        nn.init.zeros_(conv.bias)


def as_inputs(x: Images) -> Sequence[Tensor]:
    """A batch as a sequence of one; several as they are."""
    return (x,) if isinstance(x, Tensor) else x


def standardise(x: Tensor) -> Tensor:
    """Each image minus its mean, over its standard deviation or ``1 / sqrt(CHW)``, whichever is larger."""
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred * variance.clamp(min=1 / x[0].numel()).rsqrt()


def check_size(x: Tensor, factor: int) -> None:
    """Refuse images whose sides are not multiples of ``factor``."""
    height, width = x.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"image sides must be multiples of {factor}, got {height}x{width}")


def layout(x: Tensor) -> torch.memory_format:
    """``channels_last`` where the images are stored so, and not also as ``contiguous_format``."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def upsample(x: Tensor) -> Tensor:
    """Every pixel as a square of four."""
    if layout(x) == torch.channels_last:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return repeat(x, "b c h w -> b c (h 2) (w 2)")  # `interpolate` is many times slower in this layout on a CPU


def downsample(x: Tensor) -> Tensor:
    """Mean of every square of four pixels."""
    return F.avg_pool2d(x, 2)
