"""Positives against unlabeled images, PvU: a classifier of who is labeled, read as one of who is positive."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.guidance import CleanClassifier


class PoolPosterior(CleanClassifier):
    """``p(y = 1 | x)`` in the unlabeled pool: ``(1 - c) / c h(x) / (1 - h(x))``, at most 1.

    ``h(x) = p(s = 1 | x)``, ``s`` tells whether an image is labeled, and ``c`` is the share of the positives that are.

    Args:
        network: ``x -> logits (B, 2)``; their difference is the logit of ``h``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("c", torch.tensor(0.5))

    def labeled_logit(self, x: Tensor) -> Tensor:
        """Logit of ``h``, ``(B,)``."""
        logits = self.network(x)
        return logits[:, 1] - logits[:, 0]

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Logs of both probabilities, ``(B, 2)``."""
        log_odds_of_unlabeled = torch.log1p(-self.c) - self.c.log()
        p = (self.labeled_logit(x).float() + log_odds_of_unlabeled).exp().clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.log1p(-p), p.log()], dim=1)


class ElkanNoto(Method):
    """``labeled``: cross-entropy of telling labeled positives from unlabeled images.

    ``c`` is the mean of ``h`` on positives that were held out. Those of the data module's validation part serve, so
    that no label of the training part is lost; they are labels that other methods do not have. Where classes overlap
    ``c`` comes out low.

    Source: Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data", Secs. 2 and 3, estimator
    ``e1``. PvU in (a) Table 4.

    Args:
        network: ``x -> logits (B, 2)``, with ``features(x)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(classifier=PoolPosterior(network))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss; cross-entropy of the classes for a batch without unlabeled images."""
        x, y = batch["labeled"]
        if "unlabeled" not in batch:
            return {"classify": F.cross_entropy(self.classify(x), y)}
        images = torch.cat([x, batch["unlabeled"]])
        labeled = (torch.arange(len(images), device=x.device) < len(x)).to(x.dtype)
        return {"labeled": F.binary_cross_entropy_with_logits(self.classifier.labeled_logit(images), labeled)}

    @torch.no_grad()
    def estimate(self) -> None:
        """Set ``c`` by the current weights."""
        data, training = self.trainer.datamodule, self.training
        u, y = data.images("validation")
        positive = u[y == 1].split(500)
        self.eval()
        logits = [self.classifier.labeled_logit(data.grey.centre(part).to(self.device)) for part in positive]
        self.classifier.c.copy_(torch.cat(logits).float().sigmoid().mean().clamp(1e-6, 1 - 1e-6))
        self.train(training)

    def on_validation_start(self) -> None:
        self.estimate()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep ``c`` of the network's current weights; validation has set that of averaged ones."""
        self.estimate()
        checkpoint["state_dict"]["classifier.c"] = self.classifier.c.clone()
