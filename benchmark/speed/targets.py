"""Targets of races: the file of each, and the least ratio that each of its rows must show."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import InputError
from benchmark.system.surroundings import absolute


@dataclass(frozen=True)
class Target:
    """A piece of work that is raced against peers.

    Attributes:
        subject: File of ``benchmark/speed`` with a function of the target's name.
        goals: Least ratio by row, and by row and peer where peers have goals of their own, as ``row@peer``.
    """

    subject: str
    goals: dict[str, float] = field(default_factory=dict)


CHECKOUTS = {"score_sde": "models/ncsnpp.py", "cdm": "models/diffusion.py"}
"""Peers that are released code and no package, and a file by which the folder of a checkout is known."""
TARGETS = {
    "ncsnpp_small": Target(
        "networks", {"forward": 2.0, "step": 2.5, "forward/memory": 1 / 0.4, "step/memory": 1 / 0.65}
    ),
    "ncsnpp": Target("networks", {"forward": 1.45, "step": 1.55, "forward/bf16": 2.5, "step/bf16": 2.2}),
    "unet": Target("networks", {"forward": 1.2, "step": 1.15, "forward/bf16": 1.9, "step/bf16": 1.7}),
    "fir": Target("networks", {"down": 40.0, "up": 40.0}),
    "update": Target("training", {"update": 2.2}),
    "cdm": Target("training", {"step": 1.15}),
    "second_order": Target("training", {"time": 1 / 3, "flops": 1 / 6.3}),
    "overhead": Target("training", {"step": 1 / 0.4}),
    "sampler": Target("sampling", {"ddpm": 2.0, "pc": 2.0, "ddpm/operators": 47 / 8}),
    "assisted": Target("sampling", {"step": 1.25}),
    "assisted_ncsnpp": Target("sampling", {"step": 2.7, "step/memory": 1 / 0.75}),
    "inception": Target("metrics", {"features": 1.5}),
    "frechet": Target(
        "metrics",
        {
            "D=1024/cached": 2.5,
            "D=1024/cached@pytorch-fid": 6.0,
            "D=1024/uncached": 2.5,
            "D=2048/cached": 4.0,
            "D=2048/cached@pytorch-fid": 10.0,
            "D=2048/uncached": 2.5,
        },
    ),
    "precision_recall": Target("metrics", {"uncached": 1.3, "cached": 2.0, "memory": 1 / 0.2}),
    "batches": Target("data", {"flip": 3.0, "flip@torchvision": 15.0, "flip+crop": 15.0}),
}
"""Targets by name. Goals are of one thread at full size; a ratio above 1 favours us."""
PACKAGES = (
    "diffusers",
    "lightning",
    "numpy",
    "prdc",
    "pytorch-fid",
    "scipy",
    "torch",
    "torch-fidelity",
    "torchmetrics",
)
"""Packages whose versions a file of results states."""


def chosen(names: list[str] | None) -> dict[str, Target]:
    """Targets of these names or subjects, in the table's order; all of them where none is given.

    Raises:
        KeyError: With a name that is neither.
    """
    subjects = {target.subject for target in TARGETS.values()}
    for name in names or ():
        if name not in TARGETS and name not in subjects:
            raise KeyError(name)
    return {
        name: target for name, target in TARGETS.items() if names is None or name in names or target.subject in names
    }


def checkouts(words: list[str]) -> dict[str, Path]:
    """Folders of released code by name, from options ``NAME=DIR``.

    Raises:
        InputError: If a name is unknown, or a folder is no checkout.
    """
    found = {}
    for word in words:
        name, given, folder = word.partition("=")
        if not given or name not in CHECKOUTS or not folder:
            raise InputError(f"--peer takes NAME=DIR with NAME among {', '.join(CHECKOUTS)}, got {word!r}")
        if not (absolute(folder) / CHECKOUTS[name]).is_file():
            raise InputError(f"--peer: {folder} is no checkout of {name}: it has no {CHECKOUTS[name]}")
        found[name] = absolute(folder)
    return found
