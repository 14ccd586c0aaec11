"""Classification diffusion: a classifier of the noise level denoises by its gradient and scores by its logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import ClassifierFreeGuidance, told_labels
from methods.diffusion.levels import BayesClassifier, GaussianAnchor, LevelClassifier, LevelDenoiser, SinglePass
from methods.diffusion.process import DiscreteVP
from methods.diffusion.samplers import Sampler
from methods.networks.published.load import starting_from


class ClassificationDiffusion(Method):
    """Cross-entropy of the noise level and denoising error of the logits' gradient, one level an image.

    ``ce_weight CE(f(x_t), t) + mse_weight mean (eps_hat - eps)^2`` with ``t`` uniform on ``0 .. T + 1``. Either weight
    may be 0; cross-entropy alone costs less than half, and (c) gives it weight 1 there. The squared error of levels 0
    and T + 1 is a constant, kept in its mean as in the released code.

    Source: (c) Alg. 1. The released code drops labels in validation only; here, as the paper says, in training.

    Args:
        network: ``(x, y) -> (B, T + 2)``, such as ``LevelNetwork``; class-conditional if its ``classes`` are a number.
        process: Noise levels, ``DiscreteVP(pure_noise=True)``.
        sampler: See ``Method``.
        ce_weight: Weight of the cross-entropy in nats; (c) 0.001.
        mse_weight: Weight of the mean squared error of the noise.
        label_dropout: Share of training labels replaced by the null class; (c) C.5.
        guidance_scale: Of classifier-free guidance; 1 is the plain conditional model.
        class_prior: ``p(y)`` for the posterior of the class; uniform if not given.
        anchor: Gaussian fitted to the training images, whose log-densities are added to the logits; not in (c).
        checkpoint: Published weights of the network to start from, see ``load_published``; they know no anchor.

    Raises:
        ValueError: If both weights are 0; if there are both an anchor and a checkpoint; if ``class_prior`` is not of
            all classes; as ``LevelClassifier``.
    """

    def __init__(
        self,
        network: nn.Module,
        process: DiscreteVP,
        sampler: Sampler | None = None,
        ce_weight: NonNegativeFloat = 0.001,
        mse_weight: NonNegativeFloat = 1.0,
        label_dropout: ClosedUnitInterval = 0.1,
        guidance_scale: NonNegativeFloat = 1.0,
        class_prior: Sequence[float] | None = None,
        anchor: GaussianAnchor | None = None,
        checkpoint: str | None = None,
    ) -> None:
        if anchor is not None and checkpoint is not None:
            raise ValueError("published weights were trained without an anchor; give one of anchor and checkpoint")
        if ce_weight == mse_weight == 0:
            raise ValueError("one of ce_weight and mse_weight must be above 0")
        denoiser = LevelDenoiser(LevelClassifier(network, process, anchor))
        classifier, classes = None, getattr(network, "classes", None)
        if classes is not None:
            prior = torch.ones(classes) if class_prior is None else torch.tensor(class_prior)
            if len(prior) != classes:
                raise ValueError(f"class_prior must have {classes} entries, got {len(prior)}")
            classifier = BayesClassifier(denoiser, prior)
        start = starting_from(checkpoint, network)
        super().__init__(denoiser, classifier, sampler, SinglePass, guidance_scale, start=start)
        self.ce_weight, self.mse_weight, self.label_dropout = ce_weight, mse_weight, label_dropout

    @property
    def second_order(self) -> bool:
        return self.mse_weight > 0

    def guidance(self) -> Denoiser:
        return ClassifierFreeGuidance(self.denoiser, self.guidance_scale)

    def on_fit_start(self) -> None:
        """Fit the anchor to all training images."""
        anchor = self.denoiser.levels.anchor
        if anchor is None:
            return
        data = self.trainer.datamodule
        if data is None:
            raise ValueError("an anchor is fitted to the training images of a datamodule, and there is none")
        x = data.grey.centre(data.images("train")[0]).flatten(1).double()
        bin_variance = data.grey.width**2 / 12  # what dequantisation adds to every pixel
        anchor.fit(x.mean(0), torch.cov(x.T) + bin_variance * torch.eye(x.shape[1], dtype=x.dtype, device=x.device))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        conditional = self.classifier is not None
        x, y = told_labels(batch, self.label_dropout if conditional and self.training else 0.0)
        y = y if conditional else None
        levels, process = self.denoiser.levels, self.denoiser.process
        t = levels.times_at(torch.rand(len(x), device=x.device))
        x_t, eps = process.perturb(x, t)
        if self.mse_weight == 0:
            return {"level": self.ce_weight * F.cross_entropy(levels(x_t, y), process.index(t))}
        logits, slope = self.denoiser.logits_and_slope(x_t, t, y)
        return {
            # At weight 0 too: it is the only term that reaches the logits' biases, and distributed training waits for
            # the gradient of every parameter.
            "level": self.ce_weight * F.cross_entropy(logits, process.index(t)),
            "denoise": self.mse_weight * F.mse_loss(self.denoiser.eps_from(x_t, t, slope), eps),
        }
