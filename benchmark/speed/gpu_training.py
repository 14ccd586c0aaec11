"""Training steps as suites take them: by the trainer, with its callbacks, update and average; images stand in."""

from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from benchmark.cost.meter import META
from benchmark.errors import Stopped
from benchmark.speed.gpu_bench import LONGEST, WINDOW, Card, flops
from benchmark.speed.gpu_items import COMPILED
from benchmark.training.build import build, weightless
from benchmark.training.callbacks import EMA
from datamodules.base import stand_ins

HALF = "--trainer.precision=bf16-mixed"
WARM = 10
"""Steps before the clock is looked at, compilation included."""
NCSNPP = ("--config=cifar10/score_model.yaml",)
UNET = ("--config=cifar10/ddpm.yaml",)
CDM = ("--config=cifar10/cdm.yaml",)
CLASSIFIER = ("--config=cifar10/noisy_classifier.yaml",)
NETWORK = "--model.init_args.network.init_args."
"""Prefix of settings of a classifier's network."""
WITHIN = "--model.init_args.denoiser.init_args."
"""Prefix of settings of a method's denoiser."""


def ncsnpp(card: Card) -> tuple[str, ...]:
    """Settings of the score model with NCSN++ of 128 channels and 4 blocks."""
    return (*NCSNPP, f"{WITHIN}network.init_args.blocks={card.size(4, 1)}", *narrow(card, f"{WITHIN}network"))


def narrow(card: Card, network: str) -> tuple[str, ...]:
    """Settings of the smallest network, for a rehearsal."""
    multipliers = "[1,2]"
    words = (f"{network}.init_args.width=8", f"{network}.init_args.multipliers={multipliers}")
    return card.size((), (*words, f"{network}.init_args.blocks=1"))


def built(card: Card, folder: Path, *words: str) -> Any:
    """Trainer, method and data of settings; the images stand in, and nothing is saved or validated on the way."""
    kind = "gpu" if card.device.type == "cuda" else "cpu"
    own = (
        f"--trainer.default_root_dir={folder}", f"--trainer.accelerator={kind}", "--trainer.devices=1",
        "--trainer.max_steps=1000000", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0",
        "--checkpoint_every=1000000",
    )  # fmt: skip
    with stand_ins(), redirect_stdout(StringIO()):
        return build([*words, *own])


class Clock(Callback):
    """Rates of a training's steps, which it ends when it has seen enough of them.

    Args:
        card: The device.
        images: Images a step.

    Attributes:
        rates: Images a second, by window.
        step: Seconds of a step, by window.
    """

    def __init__(self, card: Card, images: int) -> None:
        self.card, self.images, self.rates = card, images, list[float]()
        self._times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done, card = trainer.global_step, self.card
        if done < card.size(WARM, 1):
            return
        if not self._times:
            self._times, self._step = [card.now()], done
            return
        now = card.now() if card.tiny or done % 5 == 0 else None
        if now is None or (not card.tiny and now - self._times[-1] < WINDOW):
            return
        self.rates.append(self.images * (done - self._step) / (now - self._times[-1]))
        self._times.append(now)
        self._step = done
        if card.tiny or now - self._times[0] > LONGEST or card.left() < 5:
            raise Stopped("enough steps were seen")


def fit(cli: Any, watcher: Callback) -> None:
    """Train until the watcher ends it."""
    cli.trainer.callbacks.append(watcher)
    with suppress(Stopped):
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def counted(card: Card, *words: str, train: bool = True) -> float:
    """FLOPs of an image's share in a training step, or of an evaluation of the denoiser, of settings."""
    with weightless():
        cli = built(card, card.task.folder, *words)
    return flops(cli.model.to(META), cli.datamodule.shape, train)


def trained(card: Card, images: int, *words: str) -> tuple[float, float]:
    """Images a second of a training, and the share of the time that made the batches.

    Args:
        card: The device.
        images: Images a step.
        words: Settings.
    """
    with TemporaryDirectory(dir=card.task.folder) as folder:
        cli = built(card, Path(folder), *words, f"--data.batch_size={images}")
        clock = Clock(card, images)
        fit(cli, clock)
        batches = cli.datamodule.train_dataloader()
    found, made = median(clock.rates), iter(range(10**6))
    return found, found / card.rate(lambda: batches.batch(next(made)), images)


def _networks(card: Card, words: tuple[str, ...], batches: tuple[int, ...]) -> None:
    """Rows of a training under bf16 autocast, in single precision and, which takes long to start, compiled."""
    each = counted(card, *words)
    for name, images, more in (
        ("bf16", batches[0], (HALF,)),
        (f"bf16, batch {batches[1]}", batches[1], (HALF,)),
        ("as configured", batches[0], ()),
        (COMPILED, batches[0], (HALF, "--compile=true")),
    ):
        found, share = trained(card, images, *words, *more)
        card.row(name, found, "images/s", each, batch=images, share_of_batches=share)


def g1(card: Card) -> None:
    """Training step of NCSN++."""
    _networks(card, ncsnpp(card), card.size((128, 512), (2, 4)))


def g2(card: Card) -> None:
    """Training step of the UNet of DDPM."""
    _networks(card, (*UNET, *narrow(card, f"{WITHIN}network")), card.size((128, 512), (2, 4)))


def g6(card: Card) -> None:
    """Step of classification diffusion over the step without the term that needs second derivatives."""
    images = card.size(128, 2)
    words = (*CDM, *narrow(card, "--model.init_args.network.init_args.trunk"))
    first_order = "--model.init_args.mse_weight=0"
    each, of_one = counted(card, *words), counted(card, *words, first_order)
    for name, more in (("step", ()), ("step/bf16", (HALF,))):
        double, _ = trained(card, images, *words, *more)
        single, _ = trained(card, images, *words, first_order, *more)
        card.row(name, single / double, "times the time", batch=images, flop_ratio=each / of_one)
        card.row(f"{name}/rate", double, "images/s", each, batch=images)


def g7(card: Card) -> None:
    """Step of the classifier: by the trainer, compiled by the trainer, and as a graph of CUDA in a bare loop.

    The graph is no setting of trainings: it holds loss, gradients and update; the average of the weights follows it.
    """
    images = card.size(128, 2)
    denoiser = f"{WITHIN}denoiser.init_args.network.init_args."  # of the score model, which training does not use
    words = (*CLASSIFIER, f"{denoiser}blocks=1", f"{denoiser}width=8", *card.size((), (f"{NETWORK}depth=10",)))
    each = counted(card, *words)
    plain, share = trained(card, images, *words)
    card.row("trainer", plain, "images/s", each, batch=images, share_of_batches=share)
    compiled, _ = trained(card, images, *words, "--compile=true")
    card.row("trainer, compiled", compiled, "images/s", each, batch=images)
    card.row("compiled over trainer", compiled / plain, "times as fast", batch=images)
    graph = _graphed(card, images, words)
    card.row("graph", graph, "images/s", each, batch=images)
    card.row("graph over trainer", graph / plain, "times as fast", batch=images)


def _graphed(card: Card, images: int, words: tuple[str, ...]) -> float:
    """Images a second of a bare loop; without a GPU, which alone has graphs, its steps run one by one."""
    with TemporaryDirectory(dir=card.task.folder) as folder:
        cli = built(card, Path(folder), *words, f"--data.batch_size={images}")
        batch = cli.datamodule.train_dataloader().batch(0)["labeled"]
    method = cli.model.to(card.device).train()
    x, y = (part.to(card.device) for part in batch)
    optimizer = method.configure_optimizers()
    for group in optimizer.param_groups:
        group["capturable"] = card.device.type == "cuda"
    ema = EMA(0.999)
    ema.setup(cli.trainer, method, "fit")

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = method.training_step({"labeled": (x, y)}, 0)["loss"]
        loss.backward()
        optimizer.step()
        return loss

    run = step
    if card.device.type == "cuda":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # graphs are captured after steps on another stream
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay

    def both() -> None:
        run()
        ema._average_model.update_parameters(method)

    return card.rate(both, images)
