"""Sampling: what samplers add to a network's evaluations, and steps guided through a denoising-assisted classifier."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.speed import pairs
from benchmark.speed.race import Bench, Side, metered
from methods.base import KeyedNoise
from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.guidance import AssistedClassifier, ClassifierGuidance, class_score
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.diffusion.samplers import DDPM, PredictorCorrector
from methods.networks.ncsnpp import NCSNpp
from methods.networks.wrn import WideResNet

STD = 0.5
"""Standard deviation of the pixels of the images whose score costs nothing."""


def sampler(bench: Bench) -> None:
    """Time and operators that a step adds to a network which costs nothing: DDPM, and predictor-corrector.

    Rows named ``keyed`` draw their noise as suites do, a generator an image; in the others both sides draw alike.
    """
    shape = bench.size((64, 3, 32, 32), (2, 3, 8, 8))
    if diffusers := bench.peers.package("diffusers"):
        _race(bench, "ddpm", "diffusers", partial(_ddpm, diffusers, shape), bench.size(200, 20), equal=True)
    if released := bench.peers.checkout("score_sde", "sampling", "sde_lib"):
        _race(bench, "pc", "score_sde", partial(_predictor_corrector, *released, shape), bench.size(100, 20))


Sides = tuple[Callable[[bool], Tensor], Callable[[], Tensor]]
"""Our samples, with the noise of suites or not, and the peer's."""


def _race(bench: Bench, row: str, peer: str, sides_of: Callable[[int], Sides], steps: int, equal: bool = False) -> None:
    """Race samplers of so many steps, and count the operators that a further step adds.

    Samples are ``equal``, or alike in their standard deviation: draws of suites are others.
    """
    ours, theirs = sides_of(steps)
    plain, keyed = partial(ours, False), partial(ours, True)
    seen = (lambda x: x) if equal else _spread
    bench.race("sampler", {row: Side(plain, seen, 1e-5 if equal else 0.1)}, {peer: Side(theirs, seen)}, steps=steps)
    bench.race("sampler", {f"{row}/keyed": Side(keyed, _spread, 0.1)}, {peer: Side(theirs, _spread)}, steps=steps)
    few, many = (
        np.array([[metered(Side(side)).operators for side in (partial(sides[0], False), sides[1])]])
        for sides in (sides_of(steps), sides_of(2 * steps))
    )
    bench.add("sampler", f"{row}/operators", peer, (many - few) / steps, "operators", error=0.0)


def _spread(x: Tensor) -> Tensor:
    return x.std()


def _noise(shape: tuple[int, ...], keyed: bool) -> Callable[[], Tensor]:
    """Draws as suites make them, or of one generator."""
    if keyed:
        return KeyedNoise(0, "sample", range(shape[0]), shape[1:])
    return partial(torch.randn, shape, generator=torch.Generator().manual_seed(0))


def _ddpm(diffusers: Any, shape: tuple[int, ...], steps: int) -> Sides:
    """Both are told that the image is half of what they see."""
    denoiser = _Half(DiscreteVP(steps))
    power = denoiser.process.alpha_bar
    settings = {"clip_sample": False, "variance_type": "fixed_small", "prediction_type": "sample"}
    scheduler = diffusers.DDPMScheduler(steps, **settings)
    scheduler.alphas_cumprod, scheduler.alphas = power[1:].float(), (power[1:] / power[:-1]).float()
    scheduler.betas = 1 - scheduler.alphas
    scheduler.set_timesteps(steps)

    @torch.no_grad()
    def theirs() -> Tensor:
        noise = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=noise)
        for t in scheduler.timesteps:
            x = scheduler.step(0.5 * x, t, x, generator=noise).prev_sample
        return x

    sampler = DDPM(steps)
    return lambda keyed: sampler(denoiser, _noise(shape, keyed)), theirs


def _predictor_corrector(sampling: Any, sde_lib: Any, shape: tuple[int, ...], steps: int) -> Sides:
    """Both know the score of N(0, STD^2) images; the corrector's norms are of each image here, of the batch there."""
    denoiser = _Shrunk(VarianceExploding())
    sde = sde_lib.VESDE(denoiser.process.sigma_min, denoiser.process.sigma_max, steps)
    released = sampling.get_pc_sampler(
        sde, shape, sampling.ReverseDiffusionPredictor, sampling.LangevinCorrector, lambda x: x, 0.16,
        continuous=True, eps=1e-5, device="cpu",
    )  # fmt: skip
    network = _Gaussian()

    def theirs() -> Tensor:
        torch.manual_seed(0)
        return released(network)[0]

    sampler = PredictorCorrector(steps)
    return lambda keyed: sampler(denoiser, _noise(shape, keyed)), theirs


class _Half(Denoiser):
    """Estimates that the image is half of the noisy one, by one operator."""

    def __init__(self, process: NoiseProcess) -> None:
        super().__init__()
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return 0.5 * x_t


class _Shrunk(_Half):
    """Denoiser of N(0, STD^2) images."""

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return x_t * (STD**2 / (STD**2 + self.process.sigma(t) ** 2))[:, None, None, None]


class _Gaussian(nn.Module):
    """Score of noisy N(0, STD^2) images, as the released sampler asks for it."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * (-1 / (sigma**2 + STD**2))[:, None, None, None]


def assisted(bench: Bench) -> None:
    """Guided evaluation that shares the denoiser's, against one that evaluates it twice; the same network on both."""
    width, blocks = bench.size((32, 2), (8, 1))
    multipliers = bench.size((1, 2, 2, 2), (1, 2))
    network = pairs.as_in_suites(NCSNpp(3, width, multipliers, blocks, dropout=0.0)).eval().requires_grad_(False)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    ours, naive, work = guided(bench, EpsDenoiser(network, VarianceExploding()))
    bench.race("assisted", {"step": Side(partial(work, ours), tolerance=1e-5)}, {"two evaluations": Side(naive)})


def assisted_ncsnpp(bench: Bench) -> None:
    """The same with our network and sharing, against the released network evaluated twice, gradients of all weights."""
    pair = pairs.ncsnpp(bench, *bench.size((32, 2), (8, 1)))
    if pair is None:
        return
    process = VarianceExploding()
    ours, _, work = guided(bench, EpsDenoiser(pair.ours.eval().requires_grad_(False), process))
    theirs = EpsDenoiser(_Released(pair.theirs.eval()), process)
    classifier = AssistedClassifier(theirs, ours.classifier.network)

    def naive(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            denoised = theirs(x_t, t)
        x_t = x_t.detach().requires_grad_()
        classifier(x_t, t).log_softmax(1).gather(1, y[:, None]).sum().backward()
        return denoised + process.sigma(t)[:, None, None, None] ** 2 * x_t.grad

    sides = Side(partial(work, ours), tolerance=1e-5), Side(partial(work, naive))
    bench.race("assisted_ncsnpp", {"step": sides[0]}, {"score_sde": sides[1]})
    bench.compare_memory("assisted_ncsnpp", "step/memory", "score_sde", *sides)


class _Released(nn.Module):
    """The released network under our interface."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, log_sigma: Tensor, y: Tensor | None = None) -> Tensor:
        return -self.network(x_t, log_sigma.exp() / 2)


def guided(
    bench: Bench, denoiser: EpsDenoiser, images: int = 16
) -> tuple[ClassifierGuidance, Callable[[], Tensor], Any]:
    """Guidance as a suite samples with it, the same by two evaluations, and the call of either."""
    n, size = bench.size((images, 32), (2, 8))
    network = WideResNet(3, 10, *bench.size((28, 2), (10, 1)), inputs=2)
    classifier = AssistedClassifier(denoiser, pairs.as_in_suites(network).eval().requires_grad_(False))
    denoiser, classifier = denoiser.to(bench.device), classifier.to(bench.device)
    x, y = torch.rand(n, 3, size, size).to(bench.device) * 2 - 1, torch.arange(n, device=bench.device) % 10
    t = torch.full((n,), 0.5, device=bench.device)
    x_t, _ = denoiser.process.perturb(x, t)

    def work(evaluate: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        return evaluate(x_t, t, y)

    @torch.no_grad()
    def naive() -> Tensor:
        score = class_score(classifier, x_t, t, y)
        return denoiser(x_t, t) + denoiser.process.sigma(t)[:, None, None, None] ** 2 * score

    return ClassifierGuidance(denoiser, classifier), naive, work
