"""Guidance by a gradient step on the feature maps of a denoiser's network."""

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from methods.diffusion.denoiser import Denoiser, EpsDenoiser
from methods.diffusion.guidance import class_log_prob


class FeatureGuidance(Denoiser):
    """The denoiser after one gradient step on its own features: ``eps = decode(Z + a dL/dZ)``.

    ``Z`` holds the middle and every skip. ``L = sum_b -log p(y_b | Z_b)`` is summed over the batch, so that the step of
    an image is its own, and ``a = scale * step``. ``dL/dZ`` is the total derivative: a map moves ``L`` through its own
    pooled path and through all deeper maps, which are functions of it. Pooling divides the gradient by the number of
    pixels: steps are large. An evaluation costs one pass of the network and one backward pass of its encoder. The
    estimate of ``x`` is not clipped.

    Source: (e) Alg. 1, and official code, whose ``retain_grad`` on the connected maps gives the total derivative. The
    decoder predicts noise, which the paper steers away from the class by adding the gradient.

    Args:
        denoiser: Denoiser by a network with ``encode`` and ``decode``.
        classifier: Classifier on the same network, with ``of_maps(skips, middle, t) -> logits``.
        scale: Weight of the class; 0 is no guidance.
        step: Step size at ``scale`` 1.

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
    ) -> None:
        super().__init__()
        if classifier.network is not denoiser.network:
            raise ValueError("feature guidance needs a denoiser and a classifier that share one network, got two")
        self.denoiser, self.classifier, self.process = denoiser, classifier, denoiser.process
        self.scale, self.step = scale, step

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser.eps(x_t, t)
        network = self.denoiser.network
        with torch.enable_grad():
            # The maps have to know that they are functions of one another, whether or not weights ask for gradients.
            skips, middle, emb = network.encode(x_t.detach().requires_grad_(), self.process.log_sigma(t))
            loss = -class_log_prob(self.classifier.of_maps(skips, middle, t), y).sum()
            gradients = torch.autograd.grad(loss, (middle, *skips))
        with torch.no_grad():
            size = self.scale * self.step
            middle, *skips = (z + size * gradient for z, gradient in zip((middle, *skips), gradients, strict=True))
            return network.decode(skips, middle, emb)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser(x_t, t)
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t.detach() - sigma * self.eps(x_t, t, y)) / alpha
