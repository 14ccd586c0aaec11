"""The true density of images of independent uniform pixels: what a likelihood of them is held against."""

import torch
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.samplers import Noise


class UniformLikelihood(Likelihood):
    """``-d log w`` inside the cube ``[-w / 2, w / 2]^d``, minus infinity outside.

    Args:
        method: Holds ``log w`` as its ``log_width``.
    """

    kind, nfe = "exact", 0

    def __init__(self, method: "UniformDensity") -> None:
        self.method = method

    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        log_width = self.method.log_width
        rounding = 1 + 1e-6
        inside = x.flatten(1).abs().amax(1) <= rounding * log_width.exp() / 2
        return torch.where(inside, -x[0].numel() * log_width, -torch.inf)


class UniformDensity(Method):
    """The cube that the data state, with nothing to train.

    Source: (c) Fig. 7, analytic values.
    """

    def __init__(self) -> None:
        super().__init__(likelihood=lambda _: UniformLikelihood(self))
        self.register_buffer("log_width", torch.zeros(()))
        self.automatic_optimization = False

    def on_fit_start(self) -> None:
        """Take over the width."""
        self.log_width.fill_(-self.trainer.datamodule.nats_per_dim)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-density in nats."""
        return {"nll": -self.log_prob(batch["labeled"][0]).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Nothing is left to do."""
        return {"loss": torch.zeros(())}

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""
