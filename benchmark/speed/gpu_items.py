"""Items that are measured on a GPU: file, share of the time and goals of each, and the message to its process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Goal(NamedTuple):
    """Value that a row must reach, and one to hope for; seconds, shares and costs are to stay below, others above."""

    must: float
    hoped: float


class Item(NamedTuple):
    """A piece of work that is measured in a process of its own, which is ended when its time is up.

    Attributes:
        subject: File of ``benchmark/speed`` with a function of the item's name.
        weight: Share of the time, in parts of the sum of all; what an item leaves goes to those after it.
        what: What it measures, for people.
        goals: By row.
        below: Whether goals are upper bounds.
    """

    subject: str
    weight: float
    what: str
    goals: Mapping[str, Goal] = MappingProxyType({})
    below: bool = False


COMPILED = "bf16, compiled"
"""Name of rows of compiled networks under autocast."""
ITEMS = {
    "peak": Item("gpu_bench", 25, "dense matrix products and copies: the peak that rates are compared with"),
    "g1": Item(
        "gpu_training", 130, "training step of NCSN++, 62.8 M weights: loss, update and average", {
            "bf16": Goal(2500, 4300),
            COMPILED: Goal(2500, 4300),
        },
    ),
    "g2": Item(
        "gpu_training", 100, "training step of DDPM's UNet, 35.7 M weights", {
            "bf16": Goal(4500, 7700),
            COMPILED: Goal(4500, 7700),
        },
    ),
    "g3": Item(
        "gpu_sampling", 100, "sampling from NCSN++ by predictor-corrector, batch 512", {
            "bf16": Goal(7500, 12800),
            COMPILED: Goal(7500, 12800),
        },
    ),
    "g4": Item(
        "gpu_peers", 110, "NCSN++ under bf16 against the released network as it is, at batch 128", {
            "step/bf16": Goal(3, 5),
            "forward/bf16": Goal(3, 5),
            f"step/{COMPILED}": Goal(3, 5),
            f"forward/{COMPILED}": Goal(3, 5),
        },
    ),
    "g5": Item(
        "gpu_peers", 110, "DDPM's UNet under bf16 against that of diffusers, at batch 128", {
            "step/bf16": Goal(1.3, 1.8),
            "forward/bf16": Goal(1.3, 1.8),
            f"step/{COMPILED}": Goal(1.0, 1.1),
            f"forward/{COMPILED}": Goal(1.0, 1.1),
        },
    ),
    "g6": Item(
        "gpu_training", 50, "classification diffusion: the step with second derivatives over that without", {
            "step": Goal(3.0, 2.3),
            "step/bf16": Goal(3.0, 2.3),
        }, below=True,
    ),
    "g7": Item(
        "gpu_training", 60, "step of the WRN-28-2 classifier at batch 128 over the trainer's own", {
            "graph over trainer": Goal(3, 6),
        },
    ),
    "g8": Item(
        "gpu_sampling", 25, "guided evaluation through the denoiser against two evaluations", {
            "step": Goal(1.3, 1.33),
        },
    ),
    "g9": Item(
        "gpu_metrics", 90, "50,000 samples: Inception, Frechet distance, Inception score, precision and recall", {
            "all": Goal(60, 20),
        }, below=True,
    ),
    "g10": Item(
        "gpu_sampling", 50, "share of the time in which the GPU waits, in a profile", {
            "training step": Goal(0.10, 0.03),
            "sampling step": Goal(0.05, 0.03),
        }, below=True,
    ),
    "score_model": Item("gpu_suite", 90, "Fashion-MNIST: training of the score model by its configuration"),
    "noisy_classifier": Item("gpu_suite", 20, "Fashion-MNIST: the noisy classifier"),
    "denoising_assisted": Item("gpu_suite", 30, "Fashion-MNIST: the classifier that sees what the score model makes"),
    "cg_sc_100": Item("gpu_suite", 30, "Fashion-MNIST: the self-calibrating classifier, second derivatives and all"),
    "supervised": Item("gpu_suite", 20, "Fashion-MNIST: the classifier of clean images"),
}  # fmt: skip
"""Items by name, in their order."""
STEPS = {
    "score_model": 1000,
    "noisy_classifier": 500,
    "denoising_assisted": 300,
    "cg_sc_100": 300,
    "supervised": 500,
}
"""Steps of the trainings of Fashion-MNIST; a training whose time is up ends sooner, and its row says after how many."""


class Skipped(Exception):
    """An item cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Task:
    """Message to the process of an item.

    Attributes:
        name: The item.
        seconds: Time until it is ended.
        tiny: Whether work is of the smallest size, on the CPU.
        folder: Folder that the items of a run share.
        peak: FLOP/s of dense bf16 products of this run; None if they were not measured.
        checkouts: Folders of released code by name.
        environment: Variables that name folders of data and weights.
    """

    name: str
    seconds: float
    tiny: bool
    folder: Path
    peak: float | None
    checkouts: dict[str, Path]
    environment: dict[str, str]


@dataclass(frozen=True)
class End:
    """End of an item: status ``done``, ``skipped``, ``failed`` or ``cut``, seconds that it took, and the reason."""

    status: str
    seconds: float
    reason: str | None
