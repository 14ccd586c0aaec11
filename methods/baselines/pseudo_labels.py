"""Semi-supervised classifiers of clean images that learn from their own confident predictions."""

import math

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier
from methods.terms import confident_cross_entropy


class PseudoLabel(Method):
    """``classify``: cross-entropy of labeled images. ``pseudo_label``: the same of unlabeled ones by their own argmax.

    The second term's weight is 0 up to step ``ramp_start``, then rises linearly to ``weight`` at ``ramp_end``. A batch
    without unlabeled images has the first alone.

    Source: Lee 2013, "Pseudo-Label: The simple and efficient semi-supervised learning method for deep neural networks",
    Eqs. 15 and 16, which has no threshold (``confidence`` 0) and ``weight`` 3. Threshold 0.95, and ``weight`` 1 after
    40 % of the steps, are of Oliver et al. 2018 (arXiv:1804.09170). Compared with in (a) Table 3.

    Args:
        network: ``x -> logits``, with ``features(x)``.
        weak: Augmentation of all images in training.
        confidence: Least probability of a pseudo-label.
        weight: Final weight of ``pseudo_label``.
        ramp_start: Step after which it counts.
        ramp_end: Step at which its weight is the final one.

    Raises:
        ValueError: If ``ramp_end`` is before ``ramp_start``.
    """

    def __init__(
        self,
        network: nn.Module,
        weak: nn.Module | None = None,
        confidence: ClosedUnitInterval = 0.95,
        weight: NonNegativeFloat = 1.0,
        ramp_start: NonNegativeInt = 0,
        ramp_end: NonNegativeInt = 0,
    ) -> None:
        if ramp_end < ramp_start:
            raise ValueError(f"ramp_end must be at least ramp_start = {ramp_start}, got {ramp_end}")
        super().__init__(classifier=CleanClassifier(network))
        self.weak, self.confidence, self.weight = weak or nn.Identity(), confidence, weight
        self.ramp_start, self.ramp_end = ramp_start, ramp_end

    def current_weight(self, step: int) -> float:
        """Weight of ``pseudo_label`` at an optimiser step, counted from 0."""
        if step >= self.ramp_end:
            return self.weight
        return self.weight * max(0.0, (step - self.ramp_start) / (self.ramp_end - self.ramp_start))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        if not self.training or "unlabeled" not in batch:
            return {"classify": F.cross_entropy(self.classify(self.weak(x) if self.training else x), y)}
        logits = self.classify(self.weak(torch.cat([x, batch["unlabeled"]])))
        guessed = logits[len(x) :]
        return {
            "classify": F.cross_entropy(logits[: len(x)], y),
            "pseudo_label": self.current_weight(self.global_step)
            * confident_cross_entropy(guessed, guessed, self.confidence),
        }


class FixMatch(Method):
    """``classify``: cross-entropy of weakly augmented labeled images. ``pseudo_label``: that of strongly augmented
    unlabeled images with the class that is predicted on a weak augmentation, where it is confident.

    A batch without unlabeled images has the first alone. The paper has seven unlabeled images for a labeled one.

    Source: Sohn et al. 2020 (arXiv:2001.07685), Eqs. 3 and 4. Compared with in (a) Table 3.

    Args:
        network: ``x -> logits``, with ``features(x)``.
        weak: Augmentation of labeled images, and of unlabeled ones where their class is predicted.
        strong: Augmentation of unlabeled images, after another draw of the weak one, where the class is learned.
        confidence: Least probability of a pseudo-label.
        weight: Weight of ``pseudo_label``.
    """

    def __init__(
        self,
        network: nn.Module,
        weak: nn.Module,
        strong: nn.Module,
        confidence: ClosedUnitInterval = 0.95,
        weight: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__(classifier=CleanClassifier(network))
        self.weak, self.strong, self.confidence, self.weight = weak, strong, confidence, weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        if not self.training or "unlabeled" not in batch:
            return {"classify": F.cross_entropy(self.classify(self.weak(x) if self.training else x), y)}
        u = batch["unlabeled"]
        with torch.no_grad():
            guide_logits = self.classify(self.weak(u))
        logits = self.classify(torch.cat([self.weak(x), self.strong(self.weak(u))]))
        return {
            "classify": F.cross_entropy(logits[: len(x)], y),
            "pseudo_label": self.weight * confident_cross_entropy(logits[len(x) :], guide_logits, self.confidence),
        }


class PartCosine(LambdaLR):
    """FixMatch's schedule: the rate times ``cos(7 pi step / (16 steps))``, down to a fifth.

    Source: Sohn et al. 2020 (arXiv:2001.07685), Sec. 2.4.

    Args:
        optimizer: Optimiser with the learning rate.
        steps: Optimiser steps of the run.
    """

    def __init__(self, optimizer: Optimizer, steps: PositiveInt) -> None:
        super().__init__(optimizer, lambda step: math.cos(7 * math.pi * step / (16 * steps)))
