"""The true density of Gaussian images: what a likelihood of them is held against."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from methods.base import Batch
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.samplers import Noise
from methods.untrained import Untrained


class GaussianLikelihood(Likelihood):
    """``log N(x; 0, L L^T)``, in double precision: variances of different axes differ by 10^8.

    Args:
        method: Holds ``L`` as its ``scale_tril``.
    """

    kind, nfe = "exact", 0

    def __init__(self, method: "KnownGaussian") -> None:
        self.method = method

    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        scale_tril = self.method.scale_tril
        density = MultivariateNormal(scale_tril.new_zeros(len(scale_tril)), scale_tril=scale_tril, validate_args=False)
        return density.log_prob(x.flatten(1).double()).to(x.dtype)


class KnownGaussian(Untrained):
    """The Gaussian that the data state, with nothing to train.

    Source: (c) in its later text, analytic values.

    Args:
        shape: Of an image, ``(C, H, W)``.
    """

    def __init__(self, shape: list[int]) -> None:
        super().__init__(likelihood=lambda _: GaussianLikelihood(self))
        self.register_buffer("scale_tril", torch.eye(math.prod(shape), dtype=torch.float64))

    def on_fit_start(self) -> None:
        """Take over the covariance's factor."""
        self.scale_tril.copy_(self.trainer.datamodule.scale_tril)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-density in nats."""
        return {"nll": -self.log_prob(batch["labeled"][0]).mean()}
