"""Networks: forward passes as samplers call them, and training steps."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.speed import pairs
from benchmark.speed.race import CPU, Bench, Side, gradients
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import DiscreteVP, UniformTimes, VarianceExploding
from methods.networks.fir import FirDown, FirUp
from methods.score_model import ScoreModel

ROUNDING = 1e-5
"""Relative difference that single precision may make."""
Predicted = Callable[[Tensor, Tensor], Tensor]
"""Noise that a peer predicts in ``x_t`` at times ``t``."""


def ncsnpp_small(bench: Bench) -> None:
    """NCSN++ of 32 channels and 2 blocks against the released one; also the memory of both."""
    pair = pairs.ncsnpp(bench, *bench.size((32, 2), (8, 1)))
    if pair is not None:
        _compare(bench, "ncsnpp_small", "score_sde", pair, VarianceExploding(), of_score_sde(pair.theirs), memory=True)


def ncsnpp(bench: Bench) -> None:
    """NCSN++ of 128 channels and 4 blocks, also under bf16 autocast, against the released one in single precision."""
    pair = pairs.ncsnpp(bench, *bench.size((128, 4), (8, 1)))
    if pair is not None:
        _compare(bench, "ncsnpp", "score_sde", pair, VarianceExploding(), of_score_sde(pair.theirs), half=True)


def unet(bench: Bench) -> None:
    """UNet of DDPM, also under bf16 autocast, against that of diffusers in single precision."""
    pair = pairs.ddpm_unet(bench)
    if pair is None:
        return
    process = DiscreteVP(1000)
    _compare(bench, "unet", "diffusers", pair, process, of_diffusers(pair.theirs, process), half=True)


def of_diffusers(network: nn.Module, process: DiscreteVP) -> Predicted:
    """The network of diffusers is told the number of the noise level, from 0."""
    return lambda x_t, t: network(x_t, process.index(t) - 1).sample


def of_score_sde(network: nn.Module) -> Predicted:
    """The released network answers ``-eps``, told ``sigma`` in units of images in [0, 1]."""
    process = VarianceExploding()
    return lambda x_t, t: -network(x_t, process.sigma(t) / 2)


def _compare(
    bench: Bench,
    name: str,
    peer: str,
    pair: pairs.Pair,
    process: NoiseProcess,
    predicted: Predicted,
    half: bool = False,
    memory: bool = False,
) -> None:
    """Race the noise that a sampler asks for, and the training step."""
    n, size = bench.size(16, 2), bench.size(32, 8)
    both = sides(pair, process, predicted, n, size, ROUNDING)
    half = half and (bench.tiny or _has_half(bench))
    for row, (side, theirs) in both.items():
        ours = {row: side}
        if half:
            ours[f"{row}/bf16"] = halved(side, CPU, {"forward": bench.size(0.01, 0.02), "step": 0.03}[row])
        bench.race(name, ours, {peer: theirs}, batch=n)
        if memory:
            bench.compare_memory(name, f"{row}/memory", peer, side, theirs, batch=n)


def sides(
    pair: pairs.Pair,
    process: NoiseProcess,
    predicted: Predicted,
    n: int,
    size: int,
    tolerance: float,
    device: torch.device = CPU,
) -> dict[str, tuple[Side, Side]]:
    """Ours and theirs of ``forward``, the noise that a sampler asks for, and ``step``, the training step.

    Args:
        pair: The networks, on ``device``.
        process: The process of both.
        predicted: The peer's network.
        n: Images.
        size: Their height and width in pixels.
        tolerance: Largest relative difference of the results.
        device: Where the images are.
    """
    x = torch.rand(n, 3, size, size, device=device) * 2 - 1
    method = ScoreModel(EpsDenoiser(pair.ours, process), UniformTimes()).to(device)
    t = process.sample_times(n, device)
    x_t, _ = process.perturb(x, t)

    @torch.no_grad()
    def forward(eps: Predicted) -> Tensor:
        return eps(x_t, t)

    def their_step() -> None:
        torch.manual_seed(0)
        pair.theirs.zero_grad()
        drawn = process.sample_times(n, device)
        noisy, eps = process.perturb(x, drawn, torch.randn_like(x))
        F.mse_loss(predicted(noisy, drawn), eps).backward()

    step = pairs.training_step(method, pair.ours, x)
    return {
        "forward": (
            Side(partial(forward, method.denoiser.eps), tolerance=tolerance),
            Side(partial(forward, predicted)),
        ),
        "step": (
            Side(step, lambda _: gradients(pair.ours), tolerance),
            Side(their_step, lambda _: pair.gradients()),
        ),
    }


def halved(side: Side, device: torch.device, tolerance: float) -> Side:
    """The same side under bf16 autocast, whose results may differ more."""

    def work() -> Tensor | None:
        with torch.autocast(device.type, torch.bfloat16):
            return side.run()

    return Side(work, side.seen, tolerance)


def _has_half(bench: Bench) -> bool:
    """Tell whether the processor computes in bf16; one that emulates it takes minutes, and tells nothing."""
    found = torch.cpu._is_avx512_bf16_supported()
    if not found:
        bench.peers.skip("bf16", "this processor has no instructions for it")
    return found


def fir(bench: Bench) -> None:
    """Halving and doubling under the low-pass filter, forward and backward."""
    if (found := bench.peers.checkout("score_sde", "models.up_or_down_sampling")) is None:
        return
    n, channels, size = bench.size((16, 128, 32), (2, 4, 8))
    x = torch.randn(n, channels, size, size).to(memory_format=torch.channels_last)
    for row, layer, theirs in (
        ("down", FirDown(channels), found[0].downsample_2d),
        ("up", FirUp(channels), found[0].upsample_2d),
    ):
        layer = pairs.as_in_suites(layer)

        def both(work: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_()
            out = work(x)
            return out, torch.autograd.grad(out.square().sum(), x)[0]

        ours = Side(partial(both, layer, x), tolerance=ROUNDING)
        peer = Side(partial(both, partial(theirs, k=[1, 3, 3, 1]), x.contiguous()))
        bench.race("fir", {row: ours}, {"score_sde": peer}, batch=n, channels=channels)
