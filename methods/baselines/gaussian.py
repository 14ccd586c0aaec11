"""Gaussians fitted to the training images: what every generative model has to beat."""

import math

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import BayesRule
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.noise_process import Level, NoiseProcess
from methods.diffusion.samplers import Noise, Sampler


class GaussianDenoiser(Denoiser):
    """``E[x | x_t]`` of a mixture with one Gaussian per component and, given ``y``, of that component.

    Args:
        shape: Of an image, ``(C, H, W)``.
        components: Gaussians, one for each class or one in all.
        process: Noise process.
    """

    def __init__(self, shape: list[int], components: int, process: NoiseProcess) -> None:
        super().__init__()
        self.process, self.shape, d = process, tuple(shape), math.prod(shape)
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, d))
        self.register_buffer("variances", torch.ones(components, d))
        self.register_buffer("axes", torch.eye(d).repeat(components, 1, 1))

    def fit(self, counts: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Take over moments ``(K,)``, ``(K, D)`` and ``(K, D, D)``."""
        variances, axes = torch.linalg.eigh(covariances.double())
        self.log_weights.copy_((counts / counts.sum()).log())
        self.means.copy_(means), self.variances.copy_(variances.clamp(min=1e-6)), self.axes.copy_(axes)

    def _projected(self, x_t: Tensor, alpha: Tensor) -> Tensor:
        """Deviations from each mean along each component's axes, ``(B, K, D)``."""
        deviations = x_t.flatten(1)[:, None] - alpha * self.means
        return torch.einsum("bkd,kde->bke", deviations, self.axes)

    def log_joint(self, x_t: Tensor, t: Tensor | None) -> Tensor:
        """``log p(x_t, component)`` in nats, ``(B, K)``; clean images without ``t``."""
        one = x_t.new_ones(len(x_t), 1, 1)
        alpha, sigma = (one, 0 * one) if t is None else self.process.scales(t, like=one)
        variances = alpha**2 * self.variances + sigma**2
        mahalanobis = (self._projected(x_t, alpha) ** 2 / variances).sum(2)
        d = self.means.shape[1]
        return self.log_weights - 0.5 * (mahalanobis + variances.log().sum(2) + d * math.log(2 * math.pi))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        one = x_t.new_ones(len(x_t), 1, 1)
        alpha, sigma = self.process.scales(t, like=one)
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        estimates = self.means + torch.einsum("bke,kde->bkd", gain * self._projected(x_t, alpha), self.axes)
        if y is None or len(self.means) == 1:
            weights = self.log_joint(x_t, t).softmax(1)
        else:
            weights = nn.functional.one_hot(y, len(self.means)).to(x_t.dtype)
        return torch.einsum("bk,bkd->bd", weights, estimates).view_as(x_t)

    def draw(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Images of components ``y`` made from standard normal ``z``; without ``y``, of components by their weights."""
        z = z.flatten(1)
        if len(self.means) == 1:
            y = z.new_zeros(len(z), dtype=torch.long)
        elif y is None:
            # The first coordinate's quantile picks the component and, rescaled within it, serves again as noise.
            u = torch.special.ndtr(z[:, 0].double())
            edges = self.log_weights.double().exp().cumsum(0)
            y = torch.searchsorted(edges, u).clamp(max=len(edges) - 1)
            within = (u - (edges - self.log_weights.double().exp())[y]) / self.log_weights.double().exp()[y]
            z = torch.cat([torch.special.ndtri(within.clamp(1e-9, 1 - 1e-9)).to(z.dtype)[:, None], z[:, 1:]], dim=1)
        spread = torch.einsum("bde,be->bd", self.axes[y], z * self.variances[y].sqrt())
        return (self.means[y] + spread).view(-1, *self.shape)


class DirectDraw(Sampler):
    """Draws from the Gaussians themselves, without diffusion."""

    final_evaluations = 0

    def __init__(self) -> None:
        super().__init__(steps=1)

    def solve(
        self, denoiser: GaussianDenoiser, x: Tensor, levels: list[Level], y: Tensor | None, noise: Noise
    ) -> Tensor:
        return denoiser.draw(x / denoiser.process.prior_scale, y)

    def final(self, denoiser: Denoiser, x_t: Tensor, t: Level, y: Tensor | None, noise: Noise) -> Tensor:
        return x_t


class _Density(Likelihood):
    """The mixture's log-density in closed form."""

    kind, nfe = "exact", 0

    def __init__(self, denoiser: GaussianDenoiser) -> None:
        self.denoiser = denoiser

    def __call__(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        return self.denoiser.log_joint(x, None).logsumexp(1)


class Gaussians(Method):
    """One Gaussian for all images, or one per class, with full covariance; fitted in one epoch of moments.

    With one per class, its posterior is quadratic discriminant analysis, at any noise level. A class's covariance is
    shrunk towards the mean over classes: ``(1 - shrinkage) S_k + shrinkage sum_k w_k S_k``.

    Source: Friedman 1989, Regularized Discriminant Analysis, Eq. 5, with the classes' covariances as they are.

    Args:
        shape: Of an image, ``(C, H, W)``.
        classes: Number of classes for a Gaussian each; 0 for one Gaussian in all.
        process: Noise process, for noisy images.
        shrinkage: In [0, 1].
    """

    def __init__(
        self,
        shape: list[int],
        classes: int,
        process: NoiseProcess,
        shrinkage: ClosedUnitInterval = 0.0,
    ) -> None:
        denoiser = GaussianDenoiser(shape, max(1, classes), process)
        super().__init__(denoiser, BayesRule(denoiser) if classes else None, DirectDraw(), _Density)
        self.automatic_optimization = False
        self.shrinkage = shrinkage
        self._moments: list[Tensor] = []

    @property
    def gaussians(self) -> GaussianDenoiser:
        """The fitted Gaussians."""
        return self.denoiser

    def guidance(self) -> Denoiser:
        return self.denoiser

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean negative log-density of the Gaussians in nats."""
        return {"nll": -self.gaussians.log_joint(batch["labeled"][0], None).logsumexp(1).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Add a batch to the moments."""
        x, y = batch["labeled"]
        components = len(self.gaussians.means)
        member = nn.functional.one_hot(y if components > 1 else torch.zeros_like(y), components).double()
        x = x.flatten(1).double()
        moments = [member.sum(0), member.T @ x, torch.einsum("bk,bd,be->kde", member, x, x)]
        self._moments = [a + b for a, b in zip(self._moments, moments, strict=True)] if self._moments else moments
        return {"loss": torch.zeros(())}

    def on_validation_start(self) -> None:
        """Fit before the validation of the epoch, which comes before its end."""
        if self._moments:
            self.on_train_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Turn the moments into the Gaussians."""
        count, first, second = self._moments
        mean = first / count[:, None]
        covariance = second / count[:, None, None] - torch.einsum("kd,ke->kde", mean, mean)
        pooled = torch.einsum("k,kde->de", count / count.sum(), covariance)
        self.gaussians.fit(count, mean, (1 - self.shrinkage) * covariance + self.shrinkage * pooled)

    def configure_optimizers(self) -> None:
        """Nothing is optimised."""


class GaussianGuidance(Gaussians):
    """A score model guided by the posterior of one Gaussian per class, a floor for learned classifiers.

    Args:
        denoiser: Trained denoiser to guide; fitting does not use it.
        shape: Of an image, ``(C, H, W)``.
        classes: Number of classes.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
        shrinkage: See ``Gaussians``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shape: list[int],
        classes: PositiveInt,
        sampler: Sampler | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
        shrinkage: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__(shape, classes, denoiser.process, shrinkage)
        self.fitted, self.denoiser = self.denoiser, denoiser
        self.sampler, self.likelihood, self.guidance_scale = sampler, None, guidance_scale

    @property
    def gaussians(self) -> GaussianDenoiser:
        return self.fitted

    def guidance(self) -> Denoiser:
        return Method.guidance(self)
