"""The training points themselves as a distribution: every score, and every class posterior of noisy points, exact."""

import math

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import BayesRule, ClassifierFreeGuidance, noisy_cross_entropy
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler
from methods.untrained import Untrained

ROWS = 32
"""Noisy points whose weights are made at once: those of more leave the processor's cache."""


class EmpiricalDenoiser(Denoiser):
    """``E[x | x_t]`` where ``x`` is one of ``N`` points, each as likely: their mean, weighted by the noise kernel.

    Given ``y``, ``x`` is one of that class. Distances are taken and weighed in double precision. Memory is ``B N``: it
    is for points in the plane and small sets.

    Source: (d) Sec. 3.3, ground truth of the toy.

    Args:
        shape: Of a point, ``(C, H, W)``.
        train_images: Number of points ``N``.
        classes: Number of classes ``K``.
        process: Noise process.
    """

    exact = True

    def __init__(
        self, shape: list[int], train_images: PositiveInt, classes: PositiveInt, process: NoiseProcess
    ) -> None:
        super().__init__()
        self.process, self.shape, self.classes = process, tuple(shape), classes
        self.register_buffer("points", torch.zeros(train_images, math.prod(shape), dtype=torch.float64))
        self.register_buffer("labels", torch.arange(train_images) % classes)

    def fit(self, x: Tensor, y: Tensor) -> None:
        """Take over points ``(N, C, H, W)`` and classes ``(N,)``.

        Raises:
            ValueError: If there are more or fewer than ``train_images``.
        """
        if len(x) != len(self.points):
            raise ValueError(f"train_images must be the {len(x)} training points, got {len(self.points)}")
        self.points.copy_(x.flatten(1)), self.labels.copy_(y)

    def _factors(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Factors ``(B, D + 2)`` and ``(D + 2, N)`` of ``log N(x_t; alpha x_i, sigma^2 I)``, up to a common constant.

        ``|x - alpha x_i|^2`` is multiplied out.
        """
        x = x_t.flatten(1).double()
        alpha, sigma = self.process.scales(t.double(), like=x)
        noisy = torch.cat([alpha * x, -0.5 * alpha**2, -0.5 * x.square().sum(1, keepdim=True)], dim=1) / sigma**2
        norms = self.points.square().sum(1, keepdim=True)
        return noisy, torch.cat([self.points, norms, torch.ones_like(norms)], dim=1).T

    def log_joint(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``log p(x_t, y)`` up to what is common to all classes, ``(B, K)``."""
        noisy, points = self._factors(x_t, t)
        kernels = noisy @ points
        of_class = [kernels.masked_fill(self.labels != y, -math.inf).logsumexp(1) for y in range(self.classes)]
        return torch.stack(of_class, dim=1).to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        noisy, points = self._factors(x_t, t)
        means = []
        for rows in range(0, len(noisy), ROWS):
            kernels = noisy[rows : rows + ROWS] @ points
            if y is not None:
                kernels = kernels.masked_fill(self.labels != y[rows : rows + ROWS, None], -math.inf)
            means.append(kernels.softmax(1) @ self.points)
        return torch.cat(means).to(x_t.dtype).view_as(x_t)


class EmpiricalDistribution(Untrained):
    """The training points, with nothing to train: its samples are copies, its scores the ground truth of a toy.

    Args:
        denoiser: Of the training points.
        sampler: See ``Method``.
    """

    def __init__(self, denoiser: EmpiricalDenoiser, sampler: Sampler | None = None) -> None:
        super().__init__(denoiser, BayesRule(denoiser), sampler, clean_time=denoiser.process.t_min)

    @property
    def points(self) -> EmpiricalDenoiser:
        """The training points."""
        return self.denoiser

    def guidance(self) -> Denoiser:
        return ClassifierFreeGuidance(self.denoiser, self.guidance_scale)

    def on_fit_start(self) -> None:
        """Take over the training points."""
        data = self.trainer.datamodule
        u, y = data.images("train")
        self.points.fit(data.grey.centre(u), y)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the exact posterior, at random times, which nothing can go below on the training points."""
        return {"classify": noisy_cross_entropy(self.classifier, *batch["labeled"])}


class EmpiricalGuidance(EmpiricalDistribution):
    """A score model guided by the class posterior of the training points, which no classifier fits better.

    What its samples lack is not the classifier's: at scale 1, guidance leaves the samples' law as it is only if the
    posterior is that of the score model's own density.

    Args:
        denoiser: Trained denoiser to guide.
        shape: Of an image, ``(C, H, W)``.
        train_images: Number of training images.
        classes: Number of classes.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shape: list[int],
        train_images: PositiveInt,
        classes: PositiveInt,
        sampler: Sampler | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__(EmpiricalDenoiser(shape, train_images, classes, denoiser.process), sampler)
        self.fitted, self.denoiser, self.guidance_scale = self.denoiser, denoiser, guidance_scale

    @property
    def points(self) -> EmpiricalDenoiser:
        return self.fitted

    def guidance(self) -> Denoiser:
        return Method.guidance(self)
