"""Methods that have nothing to train."""

import torch
from torch import Tensor

from methods.base import Batch, Method


class Untrained(Method):
    """A method whose parts are trained already, or need no training; an epoch leaves it as it is."""

    automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Nothing is left to do."""
        return {"loss": torch.zeros(())}

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""
