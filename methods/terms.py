"""Loss terms of a method."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def named(terms: Any, method: str) -> Mapping[str, Tensor]:
    """The terms that a method's ``losses`` returned, if each is a number with a name.

    Raises:
        ValueError: If they are anything else.
    """
    if isinstance(terms, Mapping) and all(isinstance(term, Tensor) and not term.ndim for term in terms.values()):
        return terms
    got = terms if isinstance(terms, Mapping) else {"": terms}
    wrong = [name for name, term in got.items() if not isinstance(term, Tensor) or term.ndim or not name]
    kind = f"{type(got[wrong[0]]).__name__}{list(getattr(got[wrong[0]], 'shape', []))}"
    of = f" for {wrong[0]!r}" if wrong[0] else ""
    raise ValueError(f"{method}.losses must return a dict of scalar tensors, one a term of the loss; got {kind}{of}")


def confident_cross_entropy(logits: Tensor, guide_logits: Tensor, confidence: float) -> Tensor:
    """Cross-entropy of ``logits`` with the classes that ``guide_logits`` give at least ``confidence``.

    The mean is over all images, those of unsure class included; no gradient reaches ``guide_logits``.
    """
    probability, y = guide_logits.detach().softmax(1).max(1)
    return (F.cross_entropy(logits, y, reduction="none") * (probability >= confidence)).mean()
