"""Contrastive features of positive and unlabeled images, puNCE, and a linear classifier on them."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier


class PUContrastive(Method):
    """``contrast``: puNCE of two views of every image. ``risk``: non-negative risk of a linear map of its features.

    The map is trained beside the features, whose network it does not reach; the paper trains it after them.

    **Open**: the normaliser. ``Z_i`` sums over all other views of the batch, as in SimCLR; the texts at hand give the
    weights of the pairs in words and no ``Z``. Rows of this method are not comparable with (a) Table 4 to the digit.

    Source: Acharya et al. 2022 (puNCE, arXiv:2206.01206), abstract; non-negative risk of Kiryo et al. 2017
    (arXiv:1703.00593), Alg. 1. Compared with in (a) Table 4.

    Args:
        network: ``x -> logits (B, 2)``, with ``features(x)`` and a linear ``head``.
        view: Makes a random view of images.
        width: Width of the projection on which views are compared.
        temperature: Of the similarities.
    """

    def __init__(
        self,
        network: nn.Module,
        view: nn.Module,
        width: PositiveInt = 128,
        temperature: PositiveFloat = 0.5,
    ) -> None:
        super().__init__(classifier=CleanClassifier(network))
        features = network.head.in_features
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))
        self.view, self.temperature = view, temperature
        self.class_prior: Tensor | None = None

    def on_fit_start(self) -> None:
        """Ask the data for the class prior."""
        self.class_prior = self.trainer.datamodule.class_prior.to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss; cross-entropy of the classes for a batch without unlabeled images."""
        x, y = batch["labeled"]
        if "unlabeled" not in batch:
            return {"classify": F.cross_entropy(self.classify(x), y)}
        images = torch.cat([x, batch["unlabeled"]])
        network, n = self.classifier.network, len(images)
        h = network.features(torch.cat([self.view(images), self.view(images)]))
        labeled = (torch.arange(n, device=x.device) < len(x)).repeat(2)
        prior = self.class_prior[1]
        logits = network.head(h.detach())
        g = (logits[:, 1] - logits[:, 0]).view(2, n)
        return {
            "contrast": pu_contrast(self.projection(h), labeled, prior, self.temperature),
            "risk": non_negative_risk(g[:, : len(x)], g[:, len(x) :], prior),
        }


def pu_contrast(z: Tensor, labeled: Tensor, prior: Tensor, temperature: float) -> Tensor:
    """puNCE of views ``z``, ``(2 B, D)``: first one of every image, then another of each in the same order.

    With ``l_ij = log softmax_j(z_i z_j / T)`` over ``j != i``, ``z`` of unit length, ``P`` the labeled views and
    ``a(i)`` the other view of ``i``, the loss is minus the mean over ``i`` of: the mean of ``l_ij`` over ``P`` without
    ``i`` where ``i`` is labeled, else ``prior`` times the mean over ``P`` and ``a(i)`` plus ``1 - prior`` times
    ``l_i a(i)``.

    Args:
        z: Projections.
        labeled: Which views are of labeled positives, ``(2 B,)``.
        prior: Share of positives among the unlabeled images.
        temperature: ``T``.
    """
    z = F.normalize(z.float(), dim=1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = F.log_softmax((z @ z.T / temperature).masked_fill(own, -torch.inf), dim=1, dtype=z.dtype).masked_fill(
        own, 0
    )
    other = own.roll(len(z) // 2, dims=1)
    pairs = labeled & ~own
    with_other = pairs | other
    to_other = (log_p * other).sum(1)
    to_positives = (log_p * pairs).sum(1) / pairs.sum(1).clamp(min=1)
    to_both = (log_p * with_other).sum(1) / with_other.sum(1)
    return -torch.where(labeled, to_positives, prior * to_both + (1 - prior) * to_other).mean()


def non_negative_risk(positive: Tensor, unlabeled: Tensor, prior: Tensor) -> Tensor:
    """``prior R_P(+) + max(0, R_U(-) - prior R_P(-))`` of the sigmoid loss; where the second is negative, minus it.

    Args:
        positive: Difference of the two logits of labeled positives.
        unlabeled: That of unlabeled images.
        prior: Share of positives among them.
    """
    of_negatives = torch.sigmoid(unlabeled).mean() - prior * torch.sigmoid(positive).mean()
    return torch.where(of_negatives < 0, -of_negatives, prior * torch.sigmoid(-positive).mean() + of_negatives)
