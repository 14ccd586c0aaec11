"""Sampling as suites draw, guided evaluations, and how long the device waits in training and sampling."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from benchmark.errors import Stopped
from benchmark.speed import pairs, sampling
from benchmark.speed.gpu_bench import Card
from benchmark.speed.gpu_items import COMPILED
from benchmark.speed.gpu_training import HALF, built, counted, fit, ncsnpp
from benchmark.speed.race import Bench
from benchmark.system.images import draw_images
from methods.base import KeyedNoise
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.process import VarianceExploding
from methods.networks.ncsnpp import NCSNpp


def _ready(card: Card, steps: int) -> Any:
    """The score model of NCSN++, ready to sample in so many steps, and its data."""
    with TemporaryDirectory(dir=card.task.folder) as folder:
        cli = built(card, Path(folder), *ncsnpp(card), f"--model.init_args.sampler.init_args.steps={steps}")
    cli.model.to(card.device).eval().requires_grad_(False)
    _move(cli.model)
    return cli


@torch.no_grad()
def _move(module: nn.Module) -> None:
    """Move weights off the zeros that some start from: where no noise is predicted, the corrector steps without end."""
    for weight in module.parameters():
        weight.add_(0.02 * torch.randn_like(weight))


def _draw(cli: Any, images: int) -> Callable[[], Any]:
    return lambda: draw_images(cli.model, cli.datamodule, range(images), None, 0, images, lambda drawn: None)


def g3(card: Card) -> None:
    """Evaluations a second of whole samplings, noise and all; suites draw as ``as suites draw``."""
    images, steps = card.size((512, 25), (2, 2))
    cli = _ready(card, steps)
    method, shape = cli.model, cli.datamodule.shape
    each, work = counted(card, *ncsnpp(card), train=False), _draw(cli, images)

    def noise() -> None:
        draws = KeyedNoise(0, "sample", range(images), shape, card.device)
        for _ in range(2 * steps + 1):
            draws()

    drawn = card.rate(noise, method.sampler.nfe * images, warm=1)
    for name, context in (("as suites draw", nullcontext), ("bf16", card.half), (COMPILED, card.half)):
        if name == COMPILED:
            card.compile(method)
        with context():
            found = card.rate(work, method.sampler.nfe * images, warm=1)
        card.row(name, found, "evaluations/s", each, batch=images, steps=steps, share_of_noise=found / drawn)


def g8(card: Card) -> None:
    """Guided evaluation that shares the denoiser's, against two evaluations; the sides are equal first."""
    width, blocks = card.size((128, 4), (8, 1))
    multipliers = card.size((1, 2, 2, 2), (1, 2))
    network = pairs.as_in_suites(NCSNpp(3, width, multipliers, blocks, dropout=0.0)).eval().requires_grad_(False)
    bench = card.bench()
    ours, naive, work = sampling.guided(bench, EpsDenoiser(network, VarianceExploding()), images=128)
    _move(network)
    _race(bench, ours, naive, work)


def _race(bench: Bench, ours: Any, naive: Callable[[], Any], work: Any) -> None:
    side = sampling.Side(lambda: work(ours), tolerance=1e-4)
    bench.race("assisted", {"step": side}, {"two evaluations": sampling.Side(naive)})


class _Profiled(Callback):
    """Profiles a few steps of a training, and ends it."""

    def __init__(self, card: Card, first: int, steps: int) -> None:
        self.card, self.first, self.last = card, first, first + steps
        self.profile = card.profiled()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.first:
            self.card.now()
            self.profile.start()
        if trainer.global_step == self.last:
            self.card.now()
            self.profile.stop()
            raise Stopped("enough steps were seen")


def g10(card: Card) -> None:
    """Share of the time in which the device waits; a profile makes the host slower, so shares are upper bounds."""
    images, first, steps = card.size((128, 10, 10), (2, 1, 1))
    for name, more in (("training step", (HALF,)), ("training step, compiled", (HALF, "--compile=true"))):
        if name == "training step":
            _sampling(card)
        with TemporaryDirectory(dir=card.task.folder) as folder:
            watcher = _Profiled(card, first, steps)
            fit(built(card, Path(folder), *ncsnpp(card), *more, f"--data.batch_size={images}"), watcher)
        card.row(name, card.idle(watcher.profile), "of the time", batch=images, steps=steps)


def _sampling(card: Card) -> None:
    images, steps = card.size((512, 5), (2, 2))
    work = _draw(_ready(card, steps), images)
    with card.half():
        work()
        with card.profiled() as seen:
            work()
            card.now()
    card.row("sampling step", card.idle(seen), "of the time", batch=images, steps=steps)
