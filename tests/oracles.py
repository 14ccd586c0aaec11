"""Gaussian mixtures of images: what every model of the benchmark estimates, in closed form and double precision.

With data ``sum_k w_k N(m_k, S_k)``, images at scales ``(alpha, sigma)`` follow
``sum_k w_k N(alpha m_k, alpha^2 S_k + sigma^2 I)``, and everything else follows from Bayes' rule.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods import UNLABELED
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import DiscreteVP

Scale = float | Tensor
"""``alpha`` or ``sigma``: one for all images, or one an image."""


def _column(scale: Scale) -> Tensor:
    return torch.as_tensor(scale, dtype=torch.float64).reshape(-1, 1, 1)


class GaussianMixture:
    """``M`` Gaussians over images ``(C, H, W)`` of ``d`` pixels, each the whole or a part of one of ``K`` classes.

    Args:
        means: ``(M, C, H, W)``.
        covariances: ``(M, d, d)``, or the variances of isotropic components, ``(M,)``.
        weights: ``(M,)``; equal if not given.
        classes: Class of each component; each its own if not given.
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        weights: Tensor | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        count, self.shape = len(means), tuple(means.shape[1:])
        self.d = math.prod(self.shape)
        self.means = means.double().flatten(1)
        if covariances.dim() == 1:
            covariances = covariances[:, None, None] * torch.eye(self.d, dtype=torch.float64)
        self.covariances = covariances.double()
        self.variances, self.axes = torch.linalg.eigh(self.covariances)
        weights = torch.ones(count) if weights is None else weights
        self.log_weights = (weights.double() / weights.double().sum()).log()
        self.classes = torch.arange(count) if classes is None else torch.as_tensor(classes)
        self.num_classes = int(self.classes.max()) + 1

    @classmethod
    def gaussian(cls, shape: Sequence[int], std: float = 0.5, mean: float = 0.0) -> "GaussianMixture":
        """One isotropic Gaussian, one class."""
        return cls(torch.full((1, *shape), mean), torch.tensor([std**2], dtype=torch.float64))

    @classmethod
    def example(cls, shape: Sequence[int] = (1, 2, 2), spread: float = 0.5) -> "GaussianMixture":
        """Five correlated Gaussians of unequal weight in three classes; ``spread`` is how far apart they are."""
        generator, d = torch.Generator().manual_seed(0), math.prod(shape)
        means = spread * torch.randn(5, *shape, generator=generator, dtype=torch.float64)
        roots = 0.2 * torch.randn(5, d, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
        covariances = roots @ roots.mT + 0.02 * torch.eye(d, dtype=torch.float64)
        return cls(means, covariances, torch.tensor([3.0, 1.0, 2.0, 2.0, 1.0]), [0, 0, 1, 2, 2])

    @property
    def class_prior(self) -> Tensor:
        """``p(y)``, ``(K,)``."""
        return torch.zeros(self.num_classes, dtype=torch.float64).index_add(0, self.classes, self.log_weights.exp())

    def sample(self, n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """``n`` images and their classes, by torch's global generator."""
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True)
        z = self.variances[k].sqrt() * torch.randn(n, self.d, dtype=torch.float64)
        x = self.means[k] + torch.einsum("nij,nj->ni", self.axes[k], z)
        return x.view(n, *self.shape).to(dtype), self.classes[k]

    def _project(self, x_t: Tensor, alpha: Scale, sigma: Scale) -> tuple[Tensor, Tensor]:
        """Deviations from each component's mean along its axes, and the variances there, ``(B, M, d)``."""
        alpha, sigma = _column(alpha), _column(sigma)
        deviation = x_t.double().flatten(1)[:, None] - alpha * self.means
        return torch.einsum("bmi,mij->bmj", deviation, self.axes), alpha**2 * self.variances + sigma**2

    def component_log_prob(
        self, x_t: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0, y: Tensor | None = None
    ) -> Tensor:
        """``log p(k, x_t)``, ``(B, M)``; ``-inf`` for components outside the class, where ``y`` gives one."""
        z, variances = self._project(x_t, alpha, sigma)
        log_prob = self.log_weights - 0.5 * (z**2 / variances + torch.log(2 * math.pi * variances)).sum(2)
        if y is None:
            return log_prob
        return log_prob.masked_fill((y[:, None] != self.classes) & (y[:, None] != UNLABELED), -math.inf)

    def log_prob(self, x_t: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0, y: Tensor | None = None) -> Tensor:
        """``log p(x_t)`` in nats, ``(B,)``, or ``log p(x_t, y)``; of the data itself at the default scales."""
        return self.component_log_prob(x_t, alpha, sigma, y).logsumexp(1)

    def class_log_joint(self, x_t: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0) -> Tensor:
        """``log p(x_t, y)`` of every class, ``(B, K)``: logits of the class posterior whose logsumexp is ``log p``."""
        others = torch.arange(self.num_classes)[:, None] != self.classes
        return self.component_log_prob(x_t, alpha, sigma)[:, None].masked_fill(others, -math.inf).logsumexp(2)

    def _posterior(self, x_t: Tensor, alpha: Scale, sigma: Scale, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``p(k | x_t, y)``, ``E[x | x_t, k]`` and the variances of ``p(x | x_t, k)`` along the component's axes."""
        z, variances = self._project(x_t, alpha, sigma)
        means = self.means + torch.einsum("bmj,mij->bmi", _column(alpha) * self.variances / variances * z, self.axes)
        left = _column(sigma) ** 2 * self.variances / variances
        return self.component_log_prob(x_t, alpha, sigma, y).softmax(1), means, left

    def denoise(self, x_t: Tensor, alpha: Scale, sigma: Scale, y: Tensor | None = None) -> Tensor:
        """``E[x | x_t]``, or ``E[x | x_t, y]``, ``(B, C, H, W)``."""
        weights, means, _ = self._posterior(x_t, alpha, sigma, y)
        return torch.einsum("bm,bmi->bi", weights, means).view(x_t.shape)

    def covariance(self, x_t: Tensor, alpha: Scale, sigma: Scale, y: Tensor | None = None) -> Tensor:
        """``Cov[x | x_t]``, or ``Cov[x | x_t, y]``, ``(B, d, d)``."""
        weights, means, variances = self._posterior(x_t, alpha, sigma, y)
        within = torch.einsum("mij,bmj,mkj->bmik", self.axes, variances, self.axes)
        off = means - torch.einsum("bm,bmi->bi", weights, means)[:, None]
        return torch.einsum("bm,bmik->bik", weights, within + off[..., None] * off[..., None, :])

    def score(self, x_t: Tensor, alpha: Scale, sigma: Scale, y: Tensor | None = None) -> Tensor:
        """``grad log p(x_t)``, or ``grad log p(x_t | y)``, ``(B, C, H, W)``; by its own formula, not by ``denoise``."""
        z, variances = self._project(x_t, alpha, sigma)
        weights = self.component_log_prob(x_t, alpha, sigma, y).softmax(1)
        return torch.einsum("bm,bmj,mij->bi", weights, -z / variances, self.axes).view(x_t.shape)

    def level_log_prob(self, x: Tensor, process: DiscreteVP) -> Tensor:
        """``log p_t(x)`` at every level of a discrete process, level 0 first, ``(B, levels)``."""
        levels = process.levels(torch.arange(process.last + 1, dtype=torch.float64) / process.last)
        return torch.stack([self.log_prob(x, level.alpha, level.sigma) for level in levels], dim=1)


class ExactDenoiser(Denoiser):
    """``E[x | x_t]`` of a mixture, ``E[x | x_t, y]`` when given labels; counts its evaluations in ``calls``."""

    def __init__(self, mixture: GaussianMixture, process: NoiseProcess) -> None:
        super().__init__()
        self.mixture, self.process, self.calls = mixture, process, 0

    def on(self, process: NoiseProcess) -> "ExactDenoiser":
        return ExactDenoiser(self.mixture, process)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.mixture.denoise(x_t, *self.process.scales(t, like=x_t), y).to(x_t.dtype)


class ExactClassifier(nn.Module):
    """``p(y | x_t)`` of a mixture: ``(x_t, t) -> log p(x_t, y)``, so that also the logits' logsumexp is exact."""

    def __init__(self, mixture: GaussianMixture, process: NoiseProcess) -> None:
        super().__init__()
        self.mixture, self.process = mixture, process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.mixture.class_log_joint(x_t, *self.process.scales(t, like=x_t)).to(x_t.dtype)
