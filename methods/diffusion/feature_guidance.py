"""Guidance by a gradient step on the feature maps of a denoiser's network."""

from collections.abc import Sequence
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.guidance import class_log_prob


class FeatureGuidance(Denoiser):
    """The denoiser after one gradient step on its own features: ``eps = decode(Z + sign a dL/dZ)``.

    ``Z`` holds every skip and the middle. ``L = sum_b -log p(y_b | Z_b)`` is summed over the batch, so that the step of
    an image is its own, and ``a = scale * step``. Pooling divides the gradient by the number of pixels: steps are
    large. Costs one evaluation and the gradient of the head; the estimate of ``x`` is not clipped.

    Source: (e) Alg. 1, and official code. The decoder predicts noise, which the paper steers away from the class by
    adding the gradient. That agrees with classifier guidance where ``d eps / d Z`` is positive definite, as it is for
    Gaussian data and ``Z = x_t``. Between separate modes at low noise it has negative eigenvalues, and the other sign
    agrees.

    Args:
        denoiser: Denoiser by a network with ``encode`` and ``decode``.
        classifier: Classifier on the same network, with ``of_maps(skips, middle, t) -> logits``.
        scale: Weight of the class; 0 is no guidance.
        step: Step size at ``scale`` 1.
        feature_step_sign: 1 adds the gradient of ``L``, as published; -1 subtracts it.

    Raises:
        ValueError: If denoiser and classifier do not share their network.

    Example:
        >>> from types import SimpleNamespace
        >>> from methods.diffusion.process import VarianceExploding
        >>> network = SimpleNamespace(encode=lambda x, s: ([], x, s), decode=lambda skips, z, s: z)
        >>> classifier = SimpleNamespace(network=network, of_maps=lambda skips, z, t: z.flatten(1))
        >>> guided = FeatureGuidance(EpsDenoiser(network, VarianceExploding()), classifier, scale=2.0, step=1.0)
        >>> guided.eps(torch.zeros(1, 1, 1, 2), torch.zeros(1), torch.tensor([0]))
        tensor([[[[-1.,  1.]]]])
    """

    def __init__(
        self,
        denoiser: EpsDenoiser,
        classifier: nn.Module,
        scale: NonNegativeFloat = 1.0,
        step: PositiveFloat = 1000.0,
        feature_step_sign: Literal[1, -1] = 1,
    ) -> None:
        super().__init__()
        if classifier.network is not denoiser.network:
            raise ValueError("feature guidance needs a denoiser and a classifier that share one network, got two")
        self.denoiser, self.classifier, self.process = denoiser, classifier, denoiser.process
        self.scale, self.step, self.feature_step_sign = scale, step, feature_step_sign

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser.eps(x_t, t)
        with torch.no_grad():
            skips, middle, emb = self.denoiser.network.encode(x_t, self.process.log_sigma(t))
            size = self.feature_step_sign * self.scale * self.step
            gradients = self._gradients((middle, *skips), t, y)
            middle, *skips = (h + size * gradient for h, gradient in zip((middle, *skips), gradients, strict=True))
            return self.denoiser.network.decode(skips, middle, emb)

    def _gradients(self, z: Sequence[Tensor], t: Tensor, y: Tensor) -> Sequence[Tensor]:
        """``dL/dZ`` for the middle and each skip."""
        with torch.enable_grad():
            middle, *skips = z = [h.detach().requires_grad_() for h in z]
            logits = self.classifier.of_maps(skips, middle, t)
            return torch.autograd.grad(-class_log_prob(logits, y).sum(), z)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser(x_t, t)
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t.detach() - sigma * self.eps(x_t, t, y)) / alpha
