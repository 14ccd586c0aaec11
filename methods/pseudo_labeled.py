"""Pseudo-labels on top of any method's classifier of noisy images."""

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from torch import Tensor

from methods.base import Batch, Method
from methods.composed import Composed
from methods.diffusion.samplers import Sampler
from methods.terms import confident_cross_entropy


class PseudoLabeled(Composed):
    """Another method's losses, and cross-entropy of noisy unlabeled images with the classes of the clean ones.

    Near the least noise the classifier is one of images: the class that it is confident of there is learned at random
    noise levels, ``E_{t, x_t}[-log p(argmax_y p(y | x) | x_t)]``. Evaluation, and a batch without unlabeled images,
    have the method's losses alone. (d) says that this can be added, and has no numbers of it.

    Source: Lee 2013 and Oliver et al. 2018, see ``PseudoLabel``.

    Args:
        method: Method with a classifier of noisy images.
        confidence: Least probability of a pseudo-label.
        weight: Weight of the term.
        sampler: See ``Method``; so is ``guidance_scale``. Those of ``method`` are not used.

    Raises:
        ValueError: See ``Composed``.
    """

    def __init__(
        self,
        method: Method,
        confidence: ClosedUnitInterval = 0.95,
        weight: NonNegativeFloat = 1.0,
        sampler: Sampler | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__(method, sampler, guidance_scale)
        self.confidence, self.weight = confidence, weight

    def term(self, batch: Batch) -> dict[str, Tensor]:
        if not self.training or "unlabeled" not in batch:
            return {}
        x = batch["unlabeled"]
        with torch.no_grad():
            guesses = self.classify(x)
        t = self.noisy_process.sample_times(len(x), x.device)
        x_t, _ = self.noisy_process.perturb(x, t)
        return {"pseudo_label": self.weight * confident_cross_entropy(self.classify(x_t, t), guesses, self.confidence)}
