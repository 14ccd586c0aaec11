"""Self-calibration of any method's classifier of noisy images."""

import torch
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor

from methods.base import Batch, Method
from methods.composed import Composed
from methods.diffusion.guidance import logits_and_score
from methods.diffusion.samplers import Sampler


class Calibrated(Composed):
    """Another method's losses, and denoising score matching of the energy that its classifier's logits define.

    That is the second term of (d): ``1/2 mean_d (sigma grad logsumexp f(x_t) + eps)^2``, at times and noise of its own,
    on all images of the batch. A denoising-assisted classifier's gradient is total. Not in the papers.

    Source: (d) Sec. 3.2, for the term; its own method is ``SelfCalibrating``, of one pass for both terms.

    Args:
        method: Method with a classifier of noisy images, twice differentiable.
        lambda_sc: Weight of the calibration.
        sampler: See ``Method``; so is ``guidance_scale``. Those of ``method`` are not used.

    Raises:
        ValueError: See ``Composed``.
    """

    second_order = True

    def __init__(
        self,
        method: Method,
        lambda_sc: NonNegativeFloat = 1.0,
        sampler: Sampler | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__(method, sampler, guidance_scale)
        self.lambda_sc = lambda_sc

    def term(self, batch: Batch) -> dict[str, Tensor]:
        x = batch["labeled"][0]
        if "unlabeled" in batch:
            x = torch.cat([x, batch["unlabeled"]])
        process = self.classifier.process
        t = process.sample_times(len(x), x.device)
        x_t, eps = process.perturb(x, t)
        _, sigma = process.scales(t, like=x_t)
        _, score = logits_and_score(self.classifier, x_t, t, lambda logits: logits.logsumexp(1))
        return {"calibrate": self.lambda_sc * 0.5 * (sigma * score + eps).square().mean()}
