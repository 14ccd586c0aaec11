"""Rates of work by kind of device, measured or assumed."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmark.suite.fields import build
from benchmark.system.yaml_files import read_yaml

FILE = Path(__file__).with_name("rates.yaml")
GPU, CPU = "h100", "cpu"
"""Kinds of devices that a forecast is made for."""


@dataclass(frozen=True)
class Rates:
    """Speed of a kind of device.

    Attributes:
        device: Its name.
        train: FLOP/s of training in single precision; on GPUs in TF32, which convolutions use. Losses made of gradients
            are trained so, because bf16 changes their gradients by several per cent.
        train_half: FLOP/s of training in mixed precision.
        evaluate: FLOP/s of evaluation, in single precision.
        operator: Seconds of the host for each tensor operator, the bound of small networks.
        measured: Whether it was measured; else it is assumed.
    """

    device: str
    train: float
    train_half: float
    evaluate: float
    operator: float
    measured: bool

    @property
    def origin(self) -> str:
        """``measured`` or ``assumed, not measured``."""
        return "measured" if self.measured else "assumed, not measured"


@cache
def rates(kind: str) -> Rates:
    """Rates of a kind of device in ``rates.yaml``.

    Raises:
        InputError: If the file lacks it or one of its numbers.
    """
    return build(Rates, read_yaml(FILE).get(kind), f"{FILE.name}: {kind}")
