"""Self-calibrating classifier guidance: the classifier's own density is fitted beside its class posterior."""

from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import NoisyClassifier, logits_and_score
from methods.diffusion.samplers import Sampler


class SelfCalibrating(Method):
    """Cross-entropy plus denoising score matching of the energy that the classifier's logits ``f`` define.

    ``log p(x_t) = logsumexp_y f_y(x_t)`` up to a constant, so ``s = grad logsumexp f`` is matched to the score of the
    noise kernel, ``-eps / sigma``, weighted with ``sigma^2``: ``1/2 mean_d (sigma s + eps)^2``. The logits enter raw;
    cross-entropy does not see what is common to all of them, and the second term fits just that.

    Source: (d) Sec. 3.2. The text does not state the reduction: here the mean over the ``d`` pixels. With half the sum,
    as in the code that (d) builds on, the same strength is ``lambda_sc / d``, and its weight 1 is ``lambda_sc = d``
    here (3072 for CIFAR-10, 64 for the digits).

    Args:
        denoiser: Trained denoiser to guide; training does not use it.
        network: ``(x_t, log sigma) -> logits``, twice differentiable.
        calibrate: Images whose noise is matched: the ``labeled`` ones, or ``all``, which takes the batch's unlabeled
            ones as well where it has any.
        lambda_sc: Weight of the calibration, not stated in (d).
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
    """

    second_order = True

    def __init__(
        self,
        denoiser: Denoiser,
        network: nn.Module,
        calibrate: Literal["labeled", "all"] = "all",
        lambda_sc: NonNegativeFloat = 1.0,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        classifier = NoisyClassifier(denoiser, network)
        super().__init__(denoiser, classifier, sampler, None, guidance_scale, None, denoiser.process.t_min)
        self.calibrate, self.lambda_sc = calibrate, lambda_sc

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        if self.calibrate == "all" and "unlabeled" in batch:
            x = torch.cat([x, batch["unlabeled"]])
        process = self.classifier.process
        t = process.sample_times(len(x), x.device)
        x_t, eps = process.perturb(x, t)
        _, sigma = process.scales(t, like=x_t)
        logits, score = logits_and_score(self.classifier, x_t, t, lambda logits: logits.logsumexp(1))
        return {
            "classify": F.cross_entropy(logits[: len(y)], y),
            "calibrate": self.lambda_sc * 0.5 * (sigma * score + eps).square().mean(),
        }
