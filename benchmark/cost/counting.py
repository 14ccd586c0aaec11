"""FLOPs, memory and disk of a suite's cells, counted on tensors without data."""

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.evaluation import Evaluation, Reference, images_of, labels_of, number_asked
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
from datamodules.base import ImageData, stand_ins
from methods.base import Method


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
    evaluation = Evaluation(cli.model, cli.datamodule, suite, reference)
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
    x = images_of(data, batch)
    with torch.no_grad():
        call = measured(lambda: (method.classifier.features(x), method.classifier(x)))
        row = method.classifier.features(x).shape[1] + method.classifier(x).shape[1]
    method.train()
    others = [NETWORKS[name] for name in protocol.features if name != REFERENCE]
    row += sum(network.numbers for network in others)
    call = call._replace(flops=call.flops + batch * sum(network.flops for network in others))
    asked = {"train": ("train", protocol.real_images), "test": (protocol.part, protocol.test_images)}
    sizes = {name: number_asked(data, part, count) for name, (part, count) in asked.items()}
    every = len(data.splits["train"]) if protocol.whole_statistics else 0
    return Reference(call, batch, 4 * row, sizes, sum(sizes.values()) + sizes["train"] + every)


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
        """The shortest cycle of batches, and its cost."""
        method, data = cli.model.train(), cli.datamodule
        labeled, unlabeled = _batch_sizes(cli)
        method.trainer = cli.trainer
        cli.trainer.datamodule = _Start(data)
        with contextlib.suppress(NotImplementedError):  # a computation that cannot do without data
            method.on_fit_start()
        batch: dict[str, Any] = {"labeled": (images_of(data, labeled), labels_of(labeled))}
        if unlabeled:
            batch["unlabeled"] = images_of(data, unlabeled)

        def step() -> Call:
            method.zero_grad()
            return measured(lambda: torch.stack(list(method.losses(batch).values())).sum().backward())

        first = step()
        rounds = math.ceil((labeled + unlabeled) / labeled)
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
    return repr((model["class_path"], kept, data.shape, *_batch_sizes(cli)))


def _batch_sizes(cli: Any) -> tuple[int, int]:
    """Labeled and unlabeled images of one of the batches whose gradients make a step."""
    data, parts = cli.datamodule, cli.trainer.accumulate_grad_batches
    return data.batch_size // parts, data.unlabeled_batch_size // parts


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _steps(cli: Any) -> int:
    """Batches of the whole training; 0 if only time limits it."""
    trainer = cli.trainer
    limits = [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * cli.datamodule.train_dataloader().epoch_steps)
    return min(limits, default=0)
