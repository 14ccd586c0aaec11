"""Trains digits methods a few steps and keeps what they did; also a script, for processes that torchrun starts."""

import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from benchmark.training.build import build
from methods.base import KeyedNoise

STEPS = 4
METHODS = {
    "supervised": ("supervised", "--data.init_args.batch_size=646"),  # 3 steps an epoch, then validation
    "score_model": ("score_model",),
    "cdm": ("cdm",),
    "joint": ("joint",),
    "joint_waiting": (
        "joint",
        "--data.init_args.batch_size=8",
        "--data.init_args.unlabeled_batch_size=16",
        '--data.init_args.labels={"class_path": "datamodules.splits.LabelsPerClass", "init_args": {"count": 10}}',
    ),
    "consistency": ("few_ssl_noisy",),
}


class Record(Callback):
    """Loss terms of each step, the mean over its shards, and what validation said."""

    def __init__(self):
        self.steps, self.terms, self.validation = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        mean = {name: trainer.strategy.reduce(term.clone(), reduce_op="mean") for name, term in outputs.items()}
        self.terms.append(mean)
        self.raw = {name: weight.detach().clone() for name, weight in pl_module.named_parameters()}
        if len(self.terms) == trainer.accumulate_grad_batches:
            self.steps.append({name: sum(t[name] for t in self.terms) / len(self.terms) for name in mean})
            del self.steps[-1]["loss"]
            self.terms.clear()

    def on_validation_end(self, trainer, pl_module):
        self.validation.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def train(name, folder, *more, steps=STEPS):
    """What a training of a method did: loss terms by step, raw weights, and averaged weights with buffers."""
    config, *words = METHODS[name]
    built = build(
        [f"--config=configs/digits/{config}.yaml", *words, f"--trainer.max_steps={steps}", "--trainer.logger=false",
         "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1",
         f"--trainer.default_root_dir={folder}", *more]
    )  # fmt: skip
    record = Record()
    built.trainer.callbacks.insert(0, record)
    built.trainer.fit(built.model, datamodule=built.datamodule)
    return {
        "steps": record.steps,
        "validation": record.validation,
        "raw": record.raw,
        "final": built.model.state_dict(),
        "logged": {name: float(value) for name, value in built.trainer.logged_metrics.items()},
    }


def draw(name, rows, batch):
    """Samples with the numbers ``rows`` as grey levels, so many at once, of a method with random weights."""
    torch.set_num_threads(1)
    built = build(
        [
            f"--config=configs/digits/{name}.yaml",
            "--model.init_args.sampler.init_args.steps=5",
            "--trainer.logger=false",
        ]
    )
    method, data = built.model.eval(), built.datamodule
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in method.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    images = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        y = torch.tensor(part) % data.classes if method.conditional else None
        images.append(data.grey.quantise(method.sample(KeyedNoise(0, "sample", part, data.shape), y).detach()))
    return torch.cat(images).numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    for method in METHODS:
        found = train(method, out / method, *sys.argv[2:])
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            torch.save(found, out / f"{method}.pt")
