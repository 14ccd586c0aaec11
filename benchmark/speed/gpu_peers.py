"""NCSN++ and the UNet of DDPM against peers' networks with the same weights, equality checked first."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmark.speed import networks, pairs
from benchmark.speed.gpu_bench import Card
from benchmark.speed.gpu_items import COMPILED, Skipped
from benchmark.speed.race import Bench
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.process import DiscreteVP, UniformTimes, VarianceExploding
from methods.score_model import ScoreModel

ROUNDING, HALVED = 1e-4, 0.05
"""Relative differences that single precision and bf16 may make on a GPU."""


def g4(card: Card) -> None:
    """The released network runs as it is, in single precision with what its default settings make faster."""
    bench = card.bench()
    pair = _pair(bench, card, pairs.ncsnpp(bench, *card.size((128, 4), (8, 1))), "score_sde")
    (released,) = bench.peers.checkout("score_sde", "models.ncsnpp")
    _without_extensions(released.layerspp.up_or_down_sampling)
    process = VarianceExploding()
    _contest(card, bench, "ncsnpp", "score_sde", pair, process, networks.of_score_sde(pair.theirs), halve_peer=False)


def _without_extensions(resampling: Any) -> None:
    """Let the released resampling take its path for CPUs on every device, where its extension was not compiled."""
    known = resampling.upfirdn2d.__globals__
    if known["upfirdn2d_op"] is not None:
        return

    def native(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        return known["upfirdn2d_native"](x, kernel, up, up, down, down, *pad, *pad)

    resampling.upfirdn2d = native


def g5(card: Card) -> None:
    """Both under bf16 autocast, as they are and both compiled."""
    bench = card.bench()
    pair = _pair(bench, card, pairs.ddpm_unet(bench), "diffusers")
    process = DiscreteVP(1000)
    _contest(card, bench, "unet", "diffusers", pair, process, networks.of_diffusers(pair.theirs, process), True)


def _pair(bench: Bench, card: Card, pair: pairs.Pair | None, peer: str) -> pairs.Pair:
    """A pair on the device.

    Raises:
        Skipped: If the peer is missing.
    """
    if pair is None:
        raise Skipped(bench.peers.lacking[peer])
    for module in (pair.ours, pair.theirs):
        module.to(card.device)
    return pair


def _contest(
    card: Card,
    bench: Bench,
    name: str,
    peer: str,
    pair: pairs.Pair,
    process: Any,
    predicted: Callable[..., Any],
    halve_peer: bool,
) -> None:
    """Race evaluations and steps under bf16 autocast, then both compiled where the peer is halved too."""
    n, size = card.size(128, 2), card.size(32, 8)

    def races(suffix: str) -> None:
        both = networks.sides(pair, process, predicted, n, size, ROUNDING, card.device)
        for row, (ours, theirs) in both.items():
            if suffix == "bf16":
                bench.race(name, {f"{row}/single": ours}, {peer: theirs}, batch=n)
            their_side = networks.halved(theirs, card.device, HALVED) if halve_peer else theirs
            side = {f"{row}/{suffix}": networks.halved(ours, card.device, HALVED)}
            bench.race(name, side, {peer: their_side}, batch=n)

    races("bf16")
    card.compile(ScoreModel(EpsDenoiser(pair.ours, process), UniformTimes()))
    if halve_peer:
        pair.theirs.compile()
    races(COMPILED)
    if bench.unequal:
        raise ValueError(f"not equal, so not timed: {', '.join(bench.unequal)}")
