"""FLOPs, memory and disk of a suite's cells, counted on tensors without data."""

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.meter import META, Call, measured
from benchmark.cost.times import CellCost, Work
from benchmark.errors import one_line
from benchmark.metrics.published_networks import NETWORKS
from benchmark.suite.cells import Cell
from benchmark.suite.graph import closure, order
from benchmark.suite.jobs import arguments
from benchmark.suite.protocol import REFERENCE
from benchmark.suite.settings import NOT_TRAINING
from benchmark.suite.suite import Suite
from benchmark.training.build import build, weightless
from benchmark.training.checkpoints import FINAL
from benchmark.training.checks import BuffersLabels
from datamodules.base import ImageData, Part, stand_ins
from methods.base import Method


@dataclass(frozen=True)
class Reference:
    """Networks that evaluate samples: their cost and the size of their outputs.

    Attributes:
        call: Cost of all networks for ``batch`` images.
        batch: Images at once.
        row: Bytes of all outputs for an image.
        data: Number of images of the training and test parts.
        seen: Images that all networks see before those of any cell; the reference's centre and scale come first.
    """

    call: Call
    batch: int
    row: int
    data: dict[str, int]
    seen: int

    def work(self, images: int) -> Work:
        """Work of ``images`` images."""
        return repeated(self.call, images, self.batch)


def repeated(call: Call, images: int, batch: int, times: float = 1) -> Work:
    """Work of a batch's call for ``images`` images, ``times`` times each, in single precision."""
    return Work(call.flops * images / batch * times, call.operators * math.ceil(images / batch) * times)


def count(suite: Suite, names: Iterable[str]) -> dict[str, CellCost | str]:
    """Count the cost of each of some cells with one seed; a text says why one cannot be counted.

    Cells leave weights without data where others look for them, so that those that need them are counted whole, and a
    cell that would not fit what it gets is found before anything is trained.
    """
    asked = {*names}
    first, wanted = closure(suite.needs, [suite.reference]), closure(suite.needs, [suite.reference, *asked])
    costs: dict[str, CellCost | str] = {}
    steps: dict[str, tuple[int, Call]] = {}
    reference: Reference | None = None
    with TemporaryDirectory() as temporary:
        for name in sorted(filter(wanted.__contains__, order(suite.needs)), key=lambda name: name not in first):
            cell = suite.cells[name]
            try:
                if cell.config is None:
                    costs[name] = _of_images(suite, cell, reference)
                    continue
                cli = _built(cell, Path(temporary))
                if name == suite.reference:
                    reference = _reference(cli, suite)
                if name in asked:
                    costs[name] = _of_cell(suite, cell, cli, reference, steps)
            except Exception as error:  # whatever it is, the other cells' costs are of use
                costs[name] = one_line(error)
    return {name: cost for name, cost in costs.items() if name in asked}


def _built(cell: Cell, folder: Path) -> Any:
    """The cell's method, its data standing in, and the weights that others need of it in the place they are read."""
    own, needed = folder / cell.name, {key: folder / other for key, other in cell.needs.items()}
    here = ("--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.devices=1")
    with stand_ins(), weightless():
        cli = build([*arguments(cell, 0, own, needed), *here])
    cli.model.to(META)
    final = own / "checkpoints" / FINAL
    final.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": cli.model.state_dict()}, final)
    return cli


def _of_cell(
    suite: Suite, cell: Cell, cli: Any, reference: Reference | None, steps: dict[str, tuple[int, Call]]
) -> CellCost:
    training = _Training(cli, steps)
    evaluation = _Evaluation(cli.model, cli.datamodule, suite, reference)
    work = {"train": training.work, "evaluate": []}
    disk = {"train": training.disk, "evaluate": 0.0}
    if cell.name == suite.reference and reference is not None:
        images = sum(reference.data.values())
        work["train"] += [reference.work(reference.seen)]
        disk["train"] += images * (reference.row + math.prod(cli.datamodule.shape))
    evaluation.answer()
    for scale in cell.guidance_scales or [None]:
        evaluation.sample(scale)
    work["evaluate"], disk["evaluate"] = evaluation.work, evaluation.disk
    return CellCost(work, disk, {"train": training.memory, "evaluate": evaluation.memory})


def _of_images(suite: Suite, cell: Cell, reference: Reference | None) -> CellCost:
    """Cost of a cell of images in place of samples."""
    if reference is None:
        raise ValueError(f"the reference {suite.reference} was not counted")
    n = reference.data["test"] if cell.images == "test" else suite.protocol.samples
    return CellCost({"evaluate": [reference.work(n)]}, {"evaluate": n * reference.row}, {})


def _reference(cli: Any, suite: Suite) -> Reference:
    method, data, protocol, batch = cli.model.eval(), cli.datamodule, suite.protocol, suite.protocol.batch
    x = _images(data, batch)
    with torch.no_grad():
        call = measured(lambda: (method.classifier.features(x), method.classifier(x)))
        row = method.classifier.features(x).shape[1] + method.classifier(x).shape[1]
    method.train()
    others = [NETWORKS[name] for name in protocol.features if name != REFERENCE]
    row += sum(network.numbers for network in others)
    call = call._replace(flops=call.flops + batch * sum(network.flops for network in others))
    asked = {"train": ("train", protocol.real_images), "test": (protocol.part, protocol.test_images)}
    sizes = {name: _asked(data, part, count) for name, (part, count) in asked.items()}
    every = len(data.splits["train"]) if protocol.whole_statistics else 0
    return Reference(call, batch, 4 * row, sizes, sum(sizes.values()) + sizes["train"] + every)


def _asked(data: ImageData, part: Part, count: int | None) -> int:
    """Number of images of a part, at most ``count``."""
    n = len(data.images(part)[1])
    return n if count is None else min(n, count)


def _images(data: ImageData, n: int) -> Tensor:
    return torch.zeros(n, *data.shape, device=META)


class _Start:
    """The data that a method reads when training starts."""

    def __init__(self, data: ImageData) -> None:
        self.grey, self.class_prior, self._data = data.grey, data.class_prior.to(META), data

    def images(self, part: Any) -> tuple[Tensor, Tensor]:
        u, y = self._data.images(part)
        return u.to(META), y.to(META)


class _Training:
    """The cost of a cell's training.

    Args:
        cli: The cell, built.
        known: Costs of steps counted before; cells that train alike are counted once.

    Attributes:
        work: Its steps, forward and backward; empty without gradient descent.
        disk: Bytes of the final weights, and of the resume points beside them.
        memory: Bytes at the peak.
    """

    def __init__(self, cli: Any, known: dict[str, tuple[int, Call]]) -> None:
        method: Method = cli.model
        weights = [weight for weight in method.parameters() if weight.requires_grad]
        trained, state = _bytes(weights), _bytes(method.state_dict().values())
        steps = _steps(cli)
        kept = min(2, max(steps // cli.trainer.accumulate_grad_batches - 1, 0) // cli.config["checkpoint_every"])
        # Adam's two moments and the average; the averaged model has every buffer too.
        self.disk = float(state + kept * (2 * state + 2 * trained))
        self.work: list[Work] = []
        self.memory = float(state)
        if not method.automatic_optimization or not weights or cli.trainer.max_steps == 0:
            return
        half = "16" in str(cli.trainer.precision)
        key = _training_key(cli)
        if key not in known:
            known[key] = self._step(cli)
        rounds, step = known[key]
        self.work = [Work(step.flops * steps / rounds, step.operators * steps / rounds, half)]
        activations = max(step.peak - trained, 0) / (2 if half else 1)
        self.memory = step.resident + 4 * trained + activations  # gradients, two moments, average

    def _step(self, cli: Any) -> tuple[int, Call]:
        """The shortest cycle of steps, and its cost."""
        method, data = cli.model.train(), cli.datamodule
        method.trainer = cli.trainer
        cli.trainer.datamodule = _Start(data)
        with contextlib.suppress(NotImplementedError):  # a computation that cannot do without data
            method.on_fit_start()
        batch: dict[str, Any] = {"labeled": (_images(data, data.batch_size), _labels(data.batch_size))}
        if data.unlabeled_batch_size:
            batch["unlabeled"] = _images(data, data.unlabeled_batch_size)

        def step() -> Call:
            method.zero_grad()
            return measured(lambda: torch.stack(list(method.losses(batch).values())).sum().backward())

        first = step()
        rounds = math.ceil((data.batch_size + data.unlabeled_batch_size) / data.batch_size)
        if rounds == 1 or not isinstance(method, BuffersLabels):
            return 1, first
        for _ in range(rounds - 2):
            method.buffer_labels(batch)
        last = step()  # the one in which there are enough labels; those before are alike
        return rounds, Call(
            (rounds - 1) * first.flops + last.flops,
            (rounds - 1) * first.operators + last.operators,
            max(first.resident, last.resident),
            max(first.peak, last.peak),
        )


def _training_key(cli: Any) -> str:
    """Text of all settings that the cost of a step depends on."""
    model, data = cli.config["model"].as_dict(), cli.datamodule
    kept = {key: value for key, value in (model.get("init_args") or {}).items() if key not in NOT_TRAINING}
    return repr((model["class_path"], kept, data.shape, data.batch_size, data.unlabeled_batch_size))


def _labels(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long, device=META)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _steps(cli: Any) -> int:
    """Batches of the whole training; 0 if only time limits it."""
    trainer = cli.trainer
    limits = [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * cli.datamodule.train_dataloader().epoch_steps)
    return min(limits, default=0)


class _Evaluation:
    """Cost of a cell's evaluation, summed over its stages.

    Attributes:
        work: Calls of the method and of the reference.
        disk: Bytes of all kept files.
        memory: Peak bytes of a batch of the protocol.
    """

    def __init__(self, method: Method, data: ImageData, suite: Suite, reference: Reference | None) -> None:
        self.method, self.data, self.protocol = method.eval().requires_grad_(False), data, suite.protocol
        self.reference = reference
        self.test = _asked(data, suite.protocol.part, suite.protocol.test_images)
        self._guided: dict[float, Call] = {}
        self.work: list[Work] = []
        self.disk = self.memory = 0.0

    def add(self, images: int, times: float, call: Callable[[Tensor, Tensor], Any]) -> None:
        """Add ``call(x, t)`` for ``images`` images, ``times`` times each."""
        self._add(images, times, self._measured(images, call))

    def _measured(self, images: int, call: Callable[[Tensor, Tensor], Any]) -> Call:
        batch = min(self.protocol.batch, images)
        x, t = _images(self.data, batch), torch.full((batch,), 0.5, device=META)
        with torch.no_grad():
            return measured(lambda: call(x, t))

    def _add(self, images: int, times: float, found: Call) -> None:
        self.work.append(repeated(found, images, min(self.protocol.batch, images), times))
        self.memory = max(self.memory, found.resident + found.peak)

    def answer(self) -> None:
        """Add logits, log-densities, denoising errors and diagnostics of the test images."""
        method, protocol, n = self.method, self.protocol, self.test
        if "classify" not in method.unsupported:
            noisy = protocol.noisy_draws + protocol.levels if method.noisy_process is not None else 0
            self.add(n, 1 + noisy, lambda x, t: method.classify(x, t if noisy else None))
            self.disk += 4 * n * (1 + noisy) * self.data.classes
            if "masked" not in method.unsupported:
                self.add(n, 1, method.classifier.masked)
                self.disk += 4 * n * 2 * self.data.classes
        if "log_prob" not in method.unsupported:
            self._likelihood()
        if "denoise" not in method.unsupported:
            self.add(n, len(protocol.denoise_times), method.denoiser.eps)
            self.disk += 4 * n * len(protocol.denoise_times)

    def _likelihood(self) -> None:
        method, protocol, likelihood, n = self.method, self.protocol, self.method.likelihood, self.test
        self.disk += 4 * n * 2  # and how many evaluations it took
        if likelihood.nfe <= 1:
            self.add(n, 1, lambda x, t: method.log_prob(x))
        else:
            pulled = likelihood.kind == "estimate"  # of a divergence, by a gradient with regard to the images
            self.add(n, likelihood.nfe, self._pulled if pulled else method.denoiser.eps)
        if "diagnostics" not in method.unsupported:  # look at every level of noise
            levels, times = method.denoiser.process.last + 1, len(protocol.denoise_times)
            self.add(n, levels + 1, lambda x, t: method.log_prob(x))  # and the lattice of grey levels
            self.add(n, 1, method.denoiser.eps)
            self.add(n, likelihood.ode.nfe, self._pulled)
            self.disk += 4 * n * (levels + times + 3)

    def _pulled(self, x: Tensor, t: Tensor) -> None:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.grad(self.method.denoiser.eps(x, t).sum(), x)

    def sample(self, scale: float | None) -> None:
        """Add samples at a guidance scale and their features."""
        method, n = self.method, self.protocol.samples
        if "sample" in method.unsupported:
            return
        kind = (scale or 0.0) if scale in (None, 0, 1) else 2.0  # all scales but 0 and 1 cost the same
        if kind not in self._guided:
            if scale is not None:
                method.guidance_scale = scale
            denoiser = method.guidance() if scale else method.denoiser
            self._guided[kind] = self._measured(n, lambda x, t: denoiser(x, t, _labels(len(x)) if scale else None))
        self._add(n, method.sampler.nfe, self._guided[kind])
        self.disk += n * (2 * math.prod(self.data.shape) + 8)  # the shards, and the file that they are joined into
        if self.reference is not None:
            self.work.append(self.reference.work(n))
            self.disk += n * self.reference.row
