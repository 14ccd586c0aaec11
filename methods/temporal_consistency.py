"""Semi-supervised and positive-unlabeled training of a classifier of noisy images by consistency over time."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import noisy_cross_entropy
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler


class TemporalConsistency(Method):
    """Labels where there are some; confident predictions at little noise, and equal features at near times, elsewhere.

    ``classify``: cross-entropy of labeled images at a random time ``t``; ``classify_tau``: the same at ``tau``.
    ``pseudo_label``: cross-entropy at ``t`` with the class that is predicted at ``tau``, zero where its probability is
    below ``confidence``, averaged over all unlabeled images.
    ``consistency``: distance of the penultimate features of one image at ``t`` and a little later.
    ``prior``: for positive and unlabeled images, cross-entropy from the class prior of the data module's unlabeled pool
    to the mean prediction of the batch at ``tau``.

    A batch without unlabeled images has the two supervised terms alone. The paper does not state the weights, how the
    second time is drawn, nor whether the distance is squared and summed over features. ``feature_variance`` is shown
    beside the terms: consistency alone is best where all features are equal.

    Source: (a), semi-supervised and positive-unlabeled learning.

    Args:
        denoiser: Trained denoiser, to guide and, for a classifier that is assisted, for ``x_hat``.
        classifier: Made from the denoiser: ``NoisyClassifier`` or ``AssistedClassifier``, of a network with
            ``features`` and ``head``.
        tau: Time that stands for little noise.
        confidence: Least probability of a pseudo-label.
        max_step: By how much the noise scale of ``x_t / alpha`` may differ between the two times, in units of [-1, 1];
            0.1 in (a) for images in [0, 1].
        shared_noise: Whether the two times of an image have the same noise.
        pseudo_weight: Weight of ``pseudo_label``.
        consistency_weight: Weight of ``consistency``.
        prior_weight: Weight of ``prior``; 0 leaves it out, as when every class has labels.
        reduction: Whether the distance is the mean or the sum of squares over features.
        squared: Whether it is that, or its root.
        ramp: Steps over which the weights of the unlabeled terms rise from zero.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classifier: Callable[[Denoiser], nn.Module],
        tau: ClosedUnitInterval = 0.01,
        confidence: ClosedUnitInterval = 0.95,
        max_step: NonNegativeFloat = 0.2,
        shared_noise: bool = False,
        pseudo_weight: NonNegativeFloat = 1.0,
        consistency_weight: NonNegativeFloat = 1.0,
        prior_weight: NonNegativeFloat = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
        squared: bool = True,
        ramp: NonNegativeInt = 0,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        t_min = denoiser.process.t_min
        clean_time = max(0.001, t_min)  # (a) reads this method's accuracy there
        super().__init__(denoiser, classifier(denoiser), sampler, None, guidance_scale, None, clean_time)
        self.tau = max(tau, t_min)
        self.confidence, self.max_step, self.shared_noise = confidence, max_step, shared_noise
        self.pseudo_weight, self.consistency_weight, self.prior_weight = pseudo_weight, consistency_weight, prior_weight
        self.reduction, self.squared, self.ramp = reduction, squared, ramp
        self.feature_variance: Tensor | None = None
        self.class_prior: Tensor | None = None

    def on_fit_start(self) -> None:
        """Ask the data for the class prior."""
        if self.prior_weight:
            self.class_prior = self.trainer.datamodule.class_prior.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and its terms; of a batch with unlabeled images also ``feature_variance``, over features."""
        found = super().training_step(batch, batch_idx)
        return found if self.feature_variance is None else {**found, "feature_variance": self.feature_variance}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.supervised(*batch["labeled"])
        if "unlabeled" in batch:
            scale = min(1.0, (self.global_step + 1) / self.ramp) if self.ramp else 1.0
            terms |= {name: scale * term for name, term in self.unsupervised(batch["unlabeled"]).items()}
        return terms

    def supervised(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The terms of labeled images."""
        return {
            "classify": noisy_cross_entropy(self.classifier, x, y),
            "classify_tau": F.cross_entropy(self._at_tau(x), y),
        }

    def unsupervised(self, x: Tensor) -> dict[str, Tensor]:
        """The weighted terms of unlabeled images."""
        process = self.classifier.process
        with torch.set_grad_enabled(bool(self.prior_weight)):
            logits_tau = self._at_tau(x)

        t = process.sample_times(len(x), x.device)
        t_later = later_times(process, t, self.max_step, torch.rand_like(t))
        eps = torch.randn_like(x)
        features = self.classifier.features(self._noisy(x, t, eps), t)
        features_later = self.classifier.features(self._noisy(x, t_later, eps if self.shared_noise else None), t_later)
        self.feature_variance = features.detach().var(0).mean()
        logits = self.classifier.network.head(features)
        terms = {
            "pseudo_label": self.pseudo_weight * pseudo_label_loss(logits, logits_tau, self.confidence),
            "consistency": self.consistency_weight * self._distance(features_later, features).mean(),
        }
        if self.prior_weight:
            terms["prior"] = self.prior_weight * prior_loss(logits_tau, self.class_prior)
        return terms

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each row of ``a`` to that of ``b``, both ``(B, D)``."""
        squares = F.mse_loss(a, b, reduction="none")
        total = squares.mean(1) if self.reduction == "mean" else squares.sum(1)
        return total if self.squared else torch.sqrt(total + torch.finfo(total.dtype).tiny)

    def _at_tau(self, x: Tensor) -> Tensor:
        """Logits of images with little noise."""
        tau = x.new_full((len(x),), self.tau)
        return self.classifier(self._noisy(x, tau), tau)

    def _noisy(self, x: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        return self.classifier.process.perturb(x, t, eps)[0]


def later_times(process: NoiseProcess, t: Tensor, max_step: float, fraction: Tensor) -> Tensor:
    """Times after ``t``, a ``fraction`` of the way to where ``sigma / alpha`` has grown by ``max_step``.

    On a variance-exploding process that way is ``ln(1 + max_step / sigma_t) / ln(sigma_max / sigma_min)`` long. Where
    the signal decays, ``sigma`` itself grows by less. A discrete process goes to its nearest levels.
    """
    grown = torch.exp(-0.5 * process.log_snr(t)) + max_step
    longest = (process.time(-2 * torch.log(grown)) - t).clamp(min=0)
    return (t + fraction * longest).clamp(max=process.t_max)


def pseudo_label_loss(logits: Tensor, guide_logits: Tensor, confidence: float) -> Tensor:
    """Cross-entropy of ``logits`` with the classes that ``guide_logits`` give at least ``confidence``.

    The mean is over all images, those of unsure class included; no gradient reaches ``guide_logits``.
    """
    probability, y = guide_logits.softmax(1).max(1)
    return (F.cross_entropy(logits, y, reduction="none") * (probability >= confidence)).mean()


def prior_loss(logits: Tensor, prior: Tensor) -> Tensor:
    """``-sum_c prior_c log mean_i p_i(c)``: at least the prior's entropy, reached when the mean prediction is it."""
    log_mean = F.log_softmax(logits, dim=1).logsumexp(0) - math.log(len(logits))
    return -(prior * log_mean).sum()
