"""Training: steps with second derivatives, the update of weights and averages, and what the trainer adds to a step."""

import copy
import time
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from benchmark.speed import pairs
from benchmark.speed.race import Bench, Side, difference, flat, gradients, metered
from benchmark.training.build import build
from benchmark.training.callbacks import EMA
from benchmark.training.quiet import quieten
from methods.classification_diffusion import ClassificationDiffusion
from methods.diffusion.denoiser import EpsDenoiser
from methods.diffusion.process import DiscreteVP, VarianceExploding
from methods.networks.wrn import WideResNet
from methods.noisy_classifier import NoisyClassifierGuidance
from methods.self_calibrating import SelfCalibrating


def cdm(bench: Bench) -> None:
    """Training step of classification diffusion, second derivatives and all, on its authors' network and on ours."""
    pair = pairs.level_network(bench)
    if pair is None:
        return
    n, size = bench.size((8, 32), (2, 8))
    x = torch.rand(n, 3, size, size) * 2 - 1
    process = DiscreteVP(1000, pure_noise=True)
    method = ClassificationDiffusion(pair.ours, process)

    step = pairs.training_step(method, pair.ours, x)

    def their_step() -> None:
        torch.manual_seed(0)
        pair.theirs.zero_grad()
        t = method.denoiser.levels.times_at(torch.rand(n))
        x_t, eps = process.perturb(x, t)
        level, sigma = process.index(t), process.scales(t, like=x_t)[1]
        logits = pair.theirs(x_t.requires_grad_()).cumsum(1)
        ratio = (logits[:, -1] - logits[torch.arange(n), level]).sum()
        slope = torch.autograd.grad(ratio, x_t, create_graph=True)[0]
        loss = 0.001 * F.cross_entropy(logits, level) + F.mse_loss(sigma * (slope + x_t), eps)
        loss.backward()

    ours = {"step": Side(step, lambda _: gradients(pair.ours), 1e-5)}
    bench.race("cdm", ours, {"cdm": Side(their_step, lambda _: pair.gradients())}, batch=n)


def second_order(bench: Bench) -> None:
    """Step of the self-calibrating classifier against the same network's without second derivatives, in time and FLOPs.

    There is no peer: what is left of ratio 1 is the price of the second derivatives, about 3 and 6.3 forward passes.
    """
    depth, n, size = bench.size((28, 64, 32), (10, 2, 8))
    network = pairs.as_in_suites(WideResNet(3, 10, depth))
    denoiser = EpsDenoiser(nn.Identity(), VarianceExploding())
    batch = {"labeled": (torch.rand(n, 3, size, size) * 2 - 1, torch.arange(n) % 10)}

    def step(method: LightningModule) -> Tensor:
        torch.manual_seed(0)
        network.zero_grad()
        found = method.training_step(batch, 0)
        found["loss"].backward()
        return found.get("classify", found["loss"])

    both = Side(partial(step, SelfCalibrating(denoiser, network)), tolerance=1e-5)
    single = Side(partial(step, NoisyClassifierGuidance(denoiser, network)))
    x, t = batch["labeled"][0], torch.zeros(n)
    forward = Side(lambda: network(x, t))
    bench.race("second_order", {"time": both}, {"one derivative": single}, batch=n)
    counts = [[metered(side).flops for side in (both, forward)]]
    bench.add("second_order", "flops", "a forward pass", np.array(counts), "FLOP", error=0.0, batch=n)


def update(bench: Bench) -> None:
    """Clipping, optimiser and average of all weights of NCSN++, as configurations have them, given gradients."""
    found = bench.peers.checkout("score_sde", "models.ema")
    pair = pairs.ncsnpp(bench, *bench.size((32, 4), (8, 1)))
    if found is None or pair is None:
        return
    ours, theirs = pair.theirs, copy.deepcopy(pair.theirs)
    for weight, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        weight.grad = torch.randn_like(weight)
        other.grad = weight.grad.clone()
    fused, plain = torch.optim.Adam(ours.parameters(), fused=True), torch.optim.Adam(theirs.parameters())
    ema, their_ema = EMA(0.999), found[0].ExponentialMovingAverage(theirs.parameters(), 0.999)
    quieten()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    module = _Holder(ours)
    ema.setup(trainer, module, "fit")

    def step() -> None:
        trainer.precision_plugin.clip_gradients(fused, 1.0)
        fused.step()
        ema._average_model.update_parameters(module)

    def their_step() -> None:
        nn.utils.clip_grad_norm_(theirs.parameters(), max_norm=1.0)
        plain.step()
        their_ema.update(theirs.parameters())

    sides = {"update": Side(step, lambda _: list(ours.parameters()), 1e-5)}
    tensors = len(their_ema.shadow_params)
    bench.race("update", sides, {"score_sde": Side(their_step, lambda _: list(theirs.parameters()))}, tensors=tensors)


class _Holder(LightningModule):
    """A network as a module that a trainer takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


CONFIG = "toy2d/supervised.yaml"
"""A training whose network costs next to nothing."""


def overhead(bench: Bench) -> None:
    """Time that the trainer with our callbacks adds to a bare loop's step, against the trainer's own defaults."""
    steps, warm = bench.size((600, 100), (6, 2))
    found, seen = [], {}
    for _ in range(bench.size(min(bench.rounds, 3), 1)):
        with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            runs = {side: _trained(Path(folder) / side, side, steps, warm) for side in ("bare", "ours", "defaults")}
        seconds = {side: seconds for side, (seconds, _) in runs.items()}
        seen = {side: weights for side, (_, weights) in runs.items()}
        found.append([(seconds[side] - seconds["bare"]) / (steps - warm) for side in ("ours", "defaults")])
    error = max(difference(seen[side], seen["bare"]) for side in ("ours", "defaults"))
    if error > 1e-5:
        bench.note_unequal("overhead/step", f"weights differ by {error:.2g} from a bare loop's")
    else:
        bench.add("overhead", "step", "trainer's defaults", np.array(found), "s", error=error, steps=steps - warm)


def _trained(folder: Path, side: str, steps: int, warm: int) -> tuple[float, np.ndarray]:
    """CPU seconds of the steps after ``warm`` of them, and the trained weights, without an average."""
    own = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.batch_size=64")
    cli = build([f"--config={CONFIG}", f"--trainer.max_steps={steps}", f"--trainer.default_root_dir={folder}", *own])
    clock = _Clock(warm, steps)
    if side == "bare":
        return _bare(cli, clock)
    if side == "ours":
        cli.trainer.callbacks.append(clock)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    else:
        trainer = Trainer(accelerator="cpu", devices=1, max_steps=steps, default_root_dir=folder, callbacks=[clock])
        trainer.fit(_Defaults(cli.model), datamodule=cli.datamodule)
    return clock.seconds, clock.weights


def _bare(cli: Any, clock: "_Clock") -> tuple[float, np.ndarray]:
    configured, batches = cli.model.configure_optimizers(), cli.datamodule.train_dataloader()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for k in range(clock.last):
        optimizer.zero_grad()
        cli.model.training_step(batches.batch(k), k)["loss"].backward()
        optimizer.step()
        schedule.step()
        clock(k + 1, cli.model)
    return clock.seconds, clock.weights


class _Clock(Callback):
    """CPU seconds between two steps, and the weights after the last."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __call__(self, step: int, module: nn.Module) -> None:
        """Look at the clock after a step."""
        if step == self.first:
            self._start = time.process_time()
        if step == self.last:
            self.seconds = time.process_time() - self._start
            self.weights = flat([weight.clone() for weight in module.parameters()])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self(trainer.global_step, pl_module)


class _Defaults(LightningModule):
    """A method trained as the trainer does by default, its loss shown on the bar in every step."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.method.training_step(batch, batch_idx)["loss"]
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return self.method.configure_optimizers()
