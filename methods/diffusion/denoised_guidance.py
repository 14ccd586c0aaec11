"""A classifier of clean images at the denoiser's estimate, and guidance by it without a classifier of noisy ones."""

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import class_log_prob
from methods.diffusion.noise_process import NoiseProcess


class DenoisedClassifier(nn.Module):
    """``p(y | x = D(x_t))``: the posterior of the estimate, which is not that of ``x_t`` unless little noise is left.

    Args:
        denoiser: Frozen denoiser ``D``.
        network: ``x -> logits`` of clean images, with ``features(x)``.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(0.5, 50.0), data_std=0.5)  # of images N(0, 0.25 I)
        >>> DenoisedClassifier(gaussian, nn.Flatten())(torch.ones(1, 1, 1, 2), t=torch.zeros(1))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, denoiser: Denoiser, network: nn.Module) -> None:
        super().__init__()
        self.network, self.denoiser = network, denoiser

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.network(self.denoised(x_t, t))

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(self.denoised(x_t, t))

    def denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``D(x_t)``, with a graph only if ``x_t`` asks for a gradient."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and x_t.requires_grad):
            return self.denoiser(x_t, t)


class TrainingFreeGuidance(Denoiser):
    """``D + scale (sigma^2 / alpha grad_{x_t} log p(y | D(x_t)) + mean guidance)``, the classifier one of clean images.

    The first term, the source's variance guidance, is the class score as if the posterior were that of the estimate;
    its gradient passes through the denoiser. Mean guidance ascends ``log p(y | x)`` from ``x = D`` in ``iterations``
    steps of ``mean_scale v``, with ``v = sigma^2 / (sigma^2 + alpha^2)``: what the first term comes to for images
    N(0, I), whose posterior variance is ``v``.

    Source: Ye et al. 2024 (arXiv:2409.15761), official code, methods/tfg.py. Departs from it: the first
    term is scaled as a class score, where the code moves ``x_{t-1}`` by ``rho_t / sqrt(alpha_t)`` of the gradient, with
    ``rho_t`` on a schedule, which is larger the less noise is left, so that ``scale`` is not its ``rho``; ``v`` in the
    place of a schedule of the steps; the noise follows the shifted estimate; and neither clipped estimates, nor noise
    on them (0.001 there for CIFAR-10), nor repeated steps (none there).

    Args:
        denoiser: ``D``.
        classifier: ``DenoisedClassifier`` of it.
        scale: Weight of the class; 1 is Bayes if the first term were the class score, 0 is no guidance.
        mean_scale: Size of a step of mean guidance; ``mu`` is 0.25 there.
        iterations: Its number of steps.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(1.0, 50.0), data_std=1.0)  # of images N(0, I)
        >>> guided = TrainingFreeGuidance(gaussian, DenoisedClassifier(gaussian, nn.Flatten()), mean_scale=0.0)
        >>> guided(torch.zeros(1, 1, 1, 2), torch.zeros(1), torch.tensor([0]))
        tensor([[[[ 0.2500, -0.2500]]]])
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifier: DenoisedClassifier,
        scale: NonNegativeFloat = 1.0,
        mean_scale: NonNegativeFloat = 0.25,
        iterations: NonNegativeInt = 4,
    ) -> None:
        super().__init__()
        self.denoiser, self.classifier, self.process = denoiser, classifier, denoiser.process
        self.scale, self.mean_scale, self.iterations = scale, mean_scale, iterations

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser(x_t, t)
        alpha, sigma = self.process.scales(t, like=x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            denoised = self.denoiser(x_t, t)
            score = self._score(denoised, y, x_t)
        denoised = denoised.detach()
        shifted, step = denoised, self.scale * self.mean_scale * sigma**2 / (sigma**2 + alpha**2)
        for _ in range(self.iterations if self.mean_scale else 0):
            with torch.enable_grad():
                x = shifted.requires_grad_()
                shifted = (x + step * self._score(x, y, x)).detach()
        return shifted.detach() + self.scale * sigma**2 / alpha * score

    def _score(self, x: Tensor, y: Tensor, of: Tensor) -> Tensor:
        """Gradient of ``log p(y | x)`` in ``of``."""
        return torch.autograd.grad(class_log_prob(self.classifier.network(x), y).sum(), of)[0]
