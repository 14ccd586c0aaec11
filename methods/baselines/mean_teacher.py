"""Semi-supervised classifier of clean images that agrees with the average of its own weights."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier


class MeanTeacher(Method):
    """Classifier that is a teacher: the moving average of the weights of a student, which learns to agree with it.

    ``classify``: cross-entropy of the student on labeled images. ``consistency``: squared difference of the two's class
    probabilities, mean over classes and over all images, each of the two with its own augmentation and input noise; no
    gradient reaches the teacher. Its weight rises as ``exp(-5 (1 - step / ramp)^2)``. The teacher's decay is
    ``min(1 - 1 / n, decay)`` after ``n`` steps, with ``early_decay`` in the ramp. A batch without unlabeled images has
    consistency on labeled ones.

    The teacher is averaged already: the run's own average of weights is to be off, ``ema: {decay: 0}``.

    Source: Tarvainen and Valpola 2017 (arXiv:1703.01780), Eq. 1, Sec. 2 and App. B; official code for the first decays.
    Compared with in (a) Table 3.

    Args:
        network: ``x -> logits``, with ``features(x)``.
        weak: Augmentation of all images, drawn anew for the teacher.
        noise: Standard deviation of Gaussian input noise, in units of [-1, 1].
        weight: Final weight of ``consistency``; in the source's code 100 with all labels, 8 with 4,000 of CIFAR-10 and
            1 with 1,000 of SVHN.
        ramp: Steps over which it rises.
        decay: Decay of the teacher after the ramp.
        early_decay: Decay of the teacher in the ramp.
    """

    def __init__(
        self,
        network: nn.Module,
        weak: nn.Module | None = None,
        noise: NonNegativeFloat = 0.15,
        weight: NonNegativeFloat = 100.0,
        ramp: NonNegativeInt = 40_000,
        decay: ClosedUnitInterval = 0.999,
        early_decay: ClosedUnitInterval = 0.99,
    ) -> None:
        teacher = copy.deepcopy(network).requires_grad_(False)
        super().__init__(classifier=CleanClassifier(teacher))
        self.student = CleanClassifier(network)
        self.weak, self.noise, self.weight = weak or nn.Identity(), noise, weight
        self.ramp, self.decay, self.early_decay = ramp, decay, early_decay

    def current_weight(self, step: int) -> float:
        """Weight of ``consistency`` at an optimiser step, counted from 0."""
        left = max(0.0, 1 - step / self.ramp) if self.ramp else 0.0
        return self.weight * math.exp(-5 * left**2)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        if not self.training:
            return {"classify": F.cross_entropy(self.classify(x), y)}
        images = torch.cat([x, batch["unlabeled"]]) if "unlabeled" in batch else x
        logits = self.student(self._seen(images))
        with torch.no_grad():
            target = self.classify(self._seen(images)).softmax(1)
        consistency = F.mse_loss(logits.softmax(1), target)
        return {
            "classify": F.cross_entropy(logits[: len(x)], y),
            "consistency": self.current_weight(self.global_step) * consistency,
        }

    def _seen(self, x: Tensor) -> Tensor:
        x = self.weak(x)
        return x + self.noise * torch.randn_like(x)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The student's step, then the teacher's."""
        super().optimizer_step(*args, **kwargs)
        self.follow(self.global_step + 1)  # the trainer counts this step when it has returned

    @torch.no_grad()
    def follow(self, n: int) -> None:
        """Move the teacher towards the student after step ``n``, counted from 1."""
        decay = min(1 - 1 / n, self.early_decay if n <= self.ramp else self.decay)
        teacher, student = list(self.classifier.parameters()), list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1 - decay)
