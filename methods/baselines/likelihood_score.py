"""Denoising likelihood score matching: a classifier whose gradient makes a score model's score that of a class."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import NoisyClassifier, class_log_prob, logits_and_score
from methods.diffusion.samplers import Sampler


class LikelihoodScoreMatching(Method):
    """``1/2 mean_d (sigma^k (grad log p(y | x_t) + s(x_t) + eps / sigma))^2 + ce_weight CE``, ``s`` a score model.

    The score model is trained and frozen. The score of the noise kernel is ``-eps / sigma``, so the first term is least
    where the classifier's gradient is the likelihood score, ``grad log p(x_t | y) - s``. With the official exponent 0
    small noise outweighs all other, as ``1 / sigma^2``; 1 weights as (d) weights its calibration.

    Source: Chao et al. 2022 (arXiv:2203.14206), official code; compared with in (d) as CG-DLSM.

    Args:
        denoiser: Trained denoiser, for ``s`` and to guide.
        network: ``(x_t, log sigma) -> logits``, twice differentiable.
        exponent: ``k``.
        ce_weight: Weight of the cross-entropy.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
    """

    second_order = True

    def __init__(
        self,
        denoiser: Denoiser,
        network: nn.Module,
        exponent: NonNegativeFloat = 0.0,
        ce_weight: NonNegativeFloat = 1.0,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        classifier = NoisyClassifier(denoiser, network)
        super().__init__(denoiser, classifier, sampler, None, guidance_scale, None, denoiser.process.t_min)
        self.exponent, self.ce_weight = exponent, ce_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        process = self.classifier.process
        t = process.sample_times(len(x), x.device)
        x_t, eps = process.perturb(x, t)
        with torch.no_grad():
            missing = eps - self.denoiser.eps(x_t, t)  # sigma (s + eps / sigma)
        _, sigma = process.scales(t, like=x_t)
        logits, score = logits_and_score(self.classifier, x_t, t, lambda logits: class_log_prob(logits, y))
        residual = sigma ** (self.exponent - 1) * (sigma * score + missing)
        return {
            "classify": self.ce_weight * F.cross_entropy(logits, y),
            "likelihood_score": 0.5 * residual.square().mean(),
        }
