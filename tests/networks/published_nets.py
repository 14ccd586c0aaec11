"""The published networks, each written as a function of its weights by name, in the order of their definition."""

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Weights(dict[str, Tensor]):
    """Published weights by name; one that is not there is drawn when the network first asks for it."""

    def get_or_draw(self, name: str, *shape: int) -> Tensor:
        if name not in self:
            self[name] = torch.randn(shape) * math.prod(shape[1:]) ** -0.5
        assert self[name].shape == shape
        return self[name]

    def conv(self, name: str, x: Tensor, out: int, size: int = 3, **options) -> Tensor:
        weight = self.get_or_draw(f"{name}.weight", out, x.shape[1], size, size)
        return F.conv2d(x, weight, self.get_or_draw(f"{name}.bias", out), **{"padding": size // 2, **options})

    def linear(self, name: str, x: Tensor, out: int) -> Tensor:
        return F.linear(x, self.get_or_draw(f"{name}.weight", out, x.shape[1]), self.get_or_draw(f"{name}.bias", out))

    def norm(self, name: str, x: Tensor, groups: int = 32, eps: float = 1e-5) -> Tensor:
        return F.group_norm(x, groups, *(self.get_or_draw(f"{name}.{p}", x.shape[1]) for p in ("weight", "bias")), eps)

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias, mean = (self.get_or_draw(f"{name}.{p}", x.shape[1]) for p in ("weight", "bias", "running_mean"))
        self.setdefault(f"{name}.running_var", torch.rand(x.shape[1]) + 0.5)
        self.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        return F.batch_norm(x, mean, self[f"{name}.running_var"], weight, bias)

    def channels(self, name: str, x: Tensor, out: int) -> Tensor:
        """Convolution in one dimension over channels ``(B, C, N)``."""
        return F.conv1d(
            x, self.get_or_draw(f"{name}.weight", out, x.shape[1], 1), self.get_or_draw(f"{name}.bias", out)
        )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of ``(B, D, N)``."""
    return torch.einsum("bnm,bdm->bdn", torch.softmax(torch.einsum("bdn,bdm->bnm", q, k) / q.shape[1] ** 0.5, -1), v)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def blur(x: Tensor, before: int, after: int) -> Tensor:
    """The filter [1, 3, 3, 1] / 8 along rows and columns."""
    x = F.pad(x, (before, after, before, after))
    x = (x[..., :-3] + 3 * x[..., 1:-2] + 3 * x[..., 2:-1] + x[..., 3:]) / 8
    return (x[..., :-3, :] + 3 * x[..., 1:-2, :] + 3 * x[..., 2:-1, :] + x[..., 3:, :]) / 8


def fir_down(x: Tensor) -> Tensor:
    return blur(x, 1, 1)[..., ::2, ::2]


def fir_up(x: Tensor) -> Tensor:
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    spread[..., ::2, ::2] = x
    return 4 * blur(spread, 2, 1)


def ncsnpp(
    w: Weights, x: Tensor, sigma: Tensor, width: int, multipliers: tuple[int, ...], blocks: int, sides: tuple[int, ...]
) -> Tensor:
    """Score of images in [0, 1]; attention where the images have one of these ``sides``."""
    index = itertools.count()

    def name(layer: str = "") -> str:
        return f"all_modules.{next(index)}{layer}"

    def norm(name: str, x: Tensor) -> Tensor:
        return w.norm(name, x, min(x.shape[1] // 4, 32), 1e-6)

    def residual(x: Tensor, out: int, resample: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        n, h = name(), x
        h = F.silu(norm(f"{n}.GroupNorm_0", h))
        if resample:
            h, x = resample(h), resample(x)
        h = w.conv(f"{n}.Conv_0", h, out)
        h = h + w.linear(f"{n}.Dense_0", F.silu(emb), out)[..., None, None]
        h = w.conv(f"{n}.Conv_1", F.silu(norm(f"{n}.GroupNorm_1", h)), out)
        return ((w.conv(f"{n}.Conv_2", x, out, 1) if resample or x.shape[1] != out else x) + h) / math.sqrt(2)

    def attention(x: Tensor) -> Tensor:
        n, c = name(), x.shape[1]

        def nin(i: int, h: Tensor) -> Tensor:
            weight, bias = w.get_or_draw(f"{n}.NIN_{i}.W", c, c), w.get_or_draw(f"{n}.NIN_{i}.b", c)
            return torch.einsum("bcn,cd->bdn", h, weight) + bias[:, None]

        h = norm(f"{n}.GroupNorm_0", x).flatten(2)
        q, k, v = (nin(i, h) for i in range(3))
        return (x + nin(3, attend(q, k, v)).view_as(x)) / math.sqrt(2)

    phase = 2 * math.pi * sigma.log()[:, None] * w.get_or_draw(name(".W"), width)
    emb = w.linear(name(), torch.cat([phase.sin(), phase.cos()], 1), 4 * width)
    emb = w.linear(name(), F.silu(emb), 4 * width)
    shown = 2 * x - 1
    hs = [w.conv(name(), shown, width)]
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            h = residual(hs[-1], width * multiplier)
            hs.append(attention(h) if h.shape[-1] in sides else h)
        if level < len(multipliers) - 1:
            h = residual(hs[-1], hs[-1].shape[1], fir_down)
            shown = w.conv(name(".Conv2d_0"), blur(shown, 2, 2), h.shape[1], stride=2, padding=0)
            shown = (shown + h) / math.sqrt(2)
            hs.append(shown)
    h = attention(residual(hs[-1], hs[-1].shape[1]))
    h = residual(h, h.shape[1])
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            h = residual(torch.cat([h, hs.pop()], 1), width * multiplier)
        if h.shape[-1] in sides:
            h = attention(h)
        if level:
            h = residual(h, h.shape[1], fir_up)
    h = F.silu(norm(name(), h))
    return w.conv(name(), h, x.shape[1]) / sigma[:, None, None, None]


def waves(t: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    phase = t[:, None].float() * frequencies
    return phase.sin(), phase.cos()


def ddpm(
    w: Weights,
    x: Tensor,
    emb: Tensor | None,
    out: int,
    multipliers: tuple[int, ...],
    blocks: int,
    sides: tuple[int, ...],
) -> Tensor:
    """The UNet of pytorch_diffusion, 128 wide, after the first layer of what it is told, if anything."""
    if emb is not None:
        emb = w.linear("temb.dense.1", F.silu(w.linear("temb.dense.0", emb, 512)), 512)

    def norm(name: str, x: Tensor) -> Tensor:
        return w.norm(name, x, eps=1e-6)

    def residual(n: str, x: Tensor, out: int) -> Tensor:
        h = w.conv(f"{n}.conv1", F.silu(norm(f"{n}.norm1", x)), out)
        if emb is not None:
            h = h + w.linear(f"{n}.temb_proj", F.silu(emb), out)[..., None, None]
        h = w.conv(f"{n}.conv2", F.silu(norm(f"{n}.norm2", h)), out)
        return (x if x.shape[1] == out else w.conv(f"{n}.nin_shortcut", x, out, 1)) + h

    def attention(n: str, x: Tensor) -> Tensor:
        h, c = norm(f"{n}.norm", x), x.shape[1]
        q, k, v = (w.conv(f"{n}.{part}", h, c, 1).flatten(2) for part in "qkv")
        return x + w.conv(f"{n}.proj_out", attend(q, k, v).view_as(x), c, 1)

    def stage(n: str, i: int, x: Tensor, out: int) -> Tensor:
        h = residual(f"{n}.block.{i}", x, out)
        return attention(f"{n}.attn.{i}", h) if h.shape[-1] in sides else h

    hs = [w.conv("conv_in", x, 128)]
    for level, multiplier in enumerate(multipliers):
        for i in range(blocks):
            hs.append(stage(f"down.{level}", i, hs[-1], 128 * multiplier))
        if level < len(multipliers) - 1:
            c = hs[-1].shape[1]
            h = F.pad(hs[-1], (0, 1, 0, 1))
            hs.append(w.conv(f"down.{level}.downsample.conv", h, c, stride=2, padding=0))
    h = residual("mid.block_1", hs[-1], hs[-1].shape[1])
    h = residual("mid.block_2", attention("mid.attn_1", h), h.shape[1])
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for i in range(blocks + 1):
            h = stage(f"up.{level}", i, torch.cat([h, hs.pop()], 1), 128 * multiplier)
        if level:
            h = w.conv(f"up.{level}.upsample.conv", twice(h), h.shape[1])
    return w.conv("conv_out", F.silu(norm("norm_out", h)), out)


class Guided:
    """UNet of guided diffusion in halves: ``residual`` resamples in blocks, or else by convolutions."""

    def __init__(self, w: Weights, blocks: int, sides: tuple[int, ...], heads: int | None, residual: bool) -> None:
        self.w, self.blocks, self.sides, self.heads, self.resamples = w, blocks, sides, heads, residual
        self.width = 128

    def tell(self, t: Tensor, y: Tensor | None = None, classes: int = 0) -> None:
        sin, cos = waves(t, torch.exp(-math.log(10_000) * torch.arange(half := self.width // 2) / half))
        emb = self.w.linear("time_embed.0", torch.cat([cos, sin], 1), 4 * self.width)
        self.emb = self.w.linear("time_embed.2", F.silu(emb), 4 * self.width)
        if y is not None:
            self.emb = self.emb + self.w.get_or_draw("label_emb.weight", classes, 4 * self.width)[y]

    def block(self, n: str, x: Tensor, out: int, resample: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        w = self.w
        h = w.conv(f"{n}.in_layers.2", resample(F.silu(w.norm(f"{n}.in_layers.0", x))), out)
        scale, shift = w.linear(f"{n}.emb_layers.1", F.silu(self.emb), 2 * out)[..., None, None].chunk(2, 1)
        h = F.silu(w.norm(f"{n}.out_layers.0", h) * (1 + scale) + shift)
        h, x = w.conv(f"{n}.out_layers.3", h, out), resample(x)
        return (x if x.shape[1] == out else w.conv(f"{n}.skip_connection", x, out, 1)) + h

    def attention(self, n: str, x: Tensor) -> Tensor:
        c = x.shape[1]
        heads = self.heads or c // 64
        qkv = self.w.channels(f"{n}.qkv", self.w.norm(f"{n}.norm", x).flatten(2), 3 * c)
        h = torch.cat([attend(*part.chunk(3, 1)) for part in qkv.chunk(heads, 1)], 1)
        return x + self.w.channels(f"{n}.proj_out", h, c).view_as(x)

    def stage(self, n: str, x: Tensor, out: int) -> Tensor:
        h = self.block(f"{n}.0", x, out)
        return self.attention(f"{n}.1", h) if h.shape[-1] in self.sides else h

    def encode(self, x: Tensor, multipliers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        hs = [self.w.conv("input_blocks.0.0", x, self.width)]
        for level, multiplier in enumerate(multipliers):
            for _ in range(self.blocks):
                hs.append(self.stage(f"input_blocks.{len(hs)}", hs[-1], self.width * multiplier))
            if level < len(multipliers) - 1:
                n, h, c = f"input_blocks.{len(hs)}.0", hs[-1], hs[-1].shape[1]
                if self.resamples:
                    hs.append(self.block(n, h, c, lambda x: F.avg_pool2d(x, 2)))
                else:
                    hs.append(self.w.conv(f"{n}.op", h, c, stride=2))
        c = hs[-1].shape[1]
        h = self.attention("middle_block.1", self.block("middle_block.0", hs[-1], c))
        return self.block("middle_block.2", h, c), hs

    def decode(self, h: Tensor, hs: list[Tensor], multipliers: tuple[int, ...], out: int) -> Tensor:
        hs, index = list(hs), itertools.count()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(self.blocks + 1):
                n = f"output_blocks.{next(index)}"
                h = self.stage(n, torch.cat([h, hs.pop()], 1), self.width * multiplier)
                if level and i == self.blocks:
                    up = f"{n}.{1 + (h.shape[-1] in self.sides)}"
                    c = h.shape[1]
                    h = self.block(up, h, c, twice) if self.resamples else self.w.conv(f"{up}.conv", twice(h), c)
        return self.w.conv("out.2", F.silu(self.w.norm("out.0", h)), out)

    def pool(self, h: Tensor, classes: int) -> Tensor:
        """Logits by attention of the mean, whose heads come after q, k and v."""
        h = F.silu(self.w.norm("out.0", h)).flatten(2)
        h = torch.cat([h.mean(-1, keepdim=True), h], -1)
        c, n = h.shape[1:]
        h = h + self.w.get_or_draw("out.2.positional_embedding", c, n)
        parts = (part.chunk(c // 64, 1) for part in self.w.channels("out.2.qkv_proj", h, 3 * c).chunk(3, 1))
        h = torch.cat([attend(q, k, v) for q, k, v in zip(*parts, strict=True)], 1)
        return self.w.channels("out.2.c_proj", h, classes)[..., 0]

    def classify(self, h: Tensor, hs: list[Tensor], t: Tensor, classes: int) -> Tensor:
        """Logits of (e)."""
        r = torch.cat([*(z.mean(dim=(2, 3)) for z in (h, *hs)), t[:, None].float()], 1)
        r = self.w.linear("clasifier.fc_1", self.w.batch_norm("clasifier.bn_1", r), (r.shape[1] - 1) // 2)
        return self.w.linear("clasifier.fc_2", self.w.batch_norm("clasifier.bn_2", F.leaky_relu(r)), classes)


# Examples of random weights, each with images and the answers to them; they are told the steps STEP.
STEP = torch.tensor([0, 417, 999])
SCORE_SDE = dict(width=16, multipliers=(1, 2, 2), blocks=2)
UNET = dict(multipliers=(1, 2), blocks=1)


def images(side: int = 8) -> torch.Tensor:
    return torch.rand(3, 3, side, side) * 2 - 1


def score_sde() -> Weights:
    weights = Weights(sigmas=torch.ones(9))
    ncsnpp(weights, torch.rand(1, 3, 16, 16), torch.ones(1), **SCORE_SDE, sides=(8,))
    return weights


def pytorch_diffusion() -> tuple[Weights, torch.Tensor, torch.Tensor]:
    weights, x = Weights(), images()
    sines = torch.cat(waves(STEP, torch.exp(-math.log(10_000) / 63 * torch.arange(64))), 1)
    return weights, x, ddpm(weights, x, sines, 3, **UNET, sides=(4,))


def guided(resampling: str = "conv", sides: tuple[int, ...] = (4,), heads: int | None = 4) -> Guided:
    return Guided(Weights(), 1, sides, heads, resampling == "residual")


def joint() -> tuple[Guided, torch.Tensor, torch.Tensor, torch.Tensor]:
    net, x = guided(), images()
    net.tell(torch.zeros(3))
    middle, skips = net.encode(x, (1, 2))
    return net, x, net.decode(middle, skips, (1, 2), out=3), net.classify(middle, skips, torch.zeros(3), classes=5)


def guided_classifier(resampling: str = "residual") -> tuple[Guided, torch.Tensor, torch.Tensor]:
    net, x = guided(resampling, heads=None), images()
    net.tell(STEP)
    return net, x, net.pool(net.encode(x, (1, 2))[0], classes=7)
