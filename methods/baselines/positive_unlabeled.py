"""Risk estimators for a classifier of clean images from positive and unlabeled ones."""

import torch
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier


class UnbiasedRisk(Method):
    """``pi R_P(+) + R_U(-) - pi R_P(-)``: the risk of all images from labeled positives ``P`` and unlabeled ones ``U``.

    Each ``R`` is a mean of the sigmoid loss ``1 / (1 + e^z)`` at ``z = g`` for class 1 and ``-g`` for class 0, with
    ``g`` the difference of the two logits, and ``pi`` the share of positives in ``U``. What is left of ``U`` without
    its positives, ``R_U(-) - pi R_P(-)``, cannot be negative, but its estimate can, once a network has memorised its
    images. uPU takes it as it is. Where it is below ``-beta``, nnPU leaves out the rest and ascends its gradient.

    Source: Kiryo et al. 2017 (arXiv:1703.00593), Alg. 1, with its ``gamma`` 1; du Plessis et al. 2015 and Niu et al.
    2016 (arXiv:1603.03130) for uPU. Compared with in (a) Table 4.

    Args:
        network: ``x -> logits (B, 2)``, with ``features(x)``.
        beta: Tolerance, or None for uPU.
    """

    def __init__(self, network: nn.Module, beta: NonNegativeFloat | None = 0.0) -> None:
        super().__init__(classifier=CleanClassifier(network))
        self.beta = beta
        self.class_prior: Tensor | None = None

    def on_fit_start(self) -> None:
        """Ask the data for the class prior.

        Raises:
            ValueError: If there are more than two classes.
        """
        prior = self.trainer.datamodule.class_prior
        if len(prior) != 2:
            raise ValueError(f"positive and unlabeled images have two classes, got {len(prior)}")
        self.class_prior = prior.to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The risk; that of both classes by their labels for a batch without unlabeled images."""
        x, y = batch["labeled"]
        if "unlabeled" not in batch:
            return {"risk": _sigmoid_loss(self._difference(x) * (2 * y - 1))}
        g = self._difference(torch.cat([x, batch["unlabeled"]]))
        positive, unlabeled = g[: len(x)], g[len(x) :]
        share = self.class_prior[1]
        of_positives = share * _sigmoid_loss(positive)
        of_negatives = _sigmoid_loss(-unlabeled) - share * _sigmoid_loss(-positive)
        risk = of_positives + of_negatives
        if self.training and self.beta is not None:
            risk = torch.where(of_negatives < -self.beta, -of_negatives, risk)
        return {"risk": risk}

    def _difference(self, x: Tensor) -> Tensor:
        """``g``, ``(B,)``."""
        logits = self.classify(x)
        return logits[:, 1] - logits[:, 0]


def _sigmoid_loss(z: Tensor) -> Tensor:
    return torch.sigmoid(-z).mean()
