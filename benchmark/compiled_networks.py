"""Networks that are compiled for training."""

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from benchmark.errors import InputError, one_line, tell
from methods.base import Method

ENTRIES = ("forward", "encode", "decode", "features")
"""Methods of a network that losses call."""


class CompiledNetworks(Callback):
    """Compiles what a method's loss evaluates of its networks, when training begins.

    Losses, samplers and the classifiers and denoisers around the networks stay as they are, and so do random draws.
    Where nothing can be compiled, networks run as they are after one warning. Evaluation after training does not
    compile.

    Args:
        method: The method that is to be trained.

    Raises:
        InputError: If the method's loss needs second derivatives, which compiled networks do not have.
    """

    def __init__(self, method: Method) -> None:
        if method.second_order:
            name = type(method).__name__
            raise InputError(f"compile must be false for {name}: its loss needs second derivatives of the network")

    def setup(self, trainer: Trainer, pl_module: Method, stage: str) -> None:
        if stage != "fit":
            return
        try:
            torch.compile(torch.sin)(torch.zeros(8, device=trainer.strategy.root_device))
        except Exception as error:
            if trainer.is_global_zero:
                tell(f"warning: compile is on, but nothing can be compiled here: {one_line(error)}")
            return
        for network in pl_module.networks():
            found = [name for name in ENTRIES if hasattr(network, name)]
            network.__dict__.update({name: torch.compile(getattr(network, name)) for name in found})

    def teardown(self, trainer: Trainer, pl_module: Method, stage: str) -> None:
        for network in pl_module.networks():
            for name in ENTRIES:
                network.__dict__.pop(name, None)
