"""Several binary attributes of an image at once: likelihood, guidance, accuracy.

Labels hold attributes as bits, or as a matrix ``(B, A)`` of 0, 1 and ``UNLABELED`` where an attribute is not asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import UNLABELED
from methods.diffusion.denoiser import Denoiser


def attributes_of(code: Tensor, count: int) -> Tensor:
    """Attributes ``(B, count)``, 0 or 1, from labels ``(B,)`` whose bit ``k`` is attribute ``k``.

    Example:
        >>> attributes_of(torch.tensor([0, 5]), 3)
        tensor([[0, 0, 0],
                [1, 0, 1]])
    """
    return code[:, None] >> torch.arange(count, device=code.device) & 1


def attribute_log_prob(logits: Tensor, attributes: Tensor) -> Tensor:
    """``sum_k log p(a_k)`` over the attributes asked for, ``p(a_k = 1) = sigmoid(logits_k)``, in nats, ``(B,)``.

    Example:
        >>> attribute_log_prob(torch.zeros(1, 3), torch.tensor([[1, 0, UNLABELED]]))  # 2 log (1/2)
        tensor([-1.3863])
    """
    each = F.logsigmoid(torch.where(attributes == 1, logits, -logits).float())
    return each.masked_fill(attributes == UNLABELED, 0).sum(1)


def attribute_accuracy(logits: Tensor, attributes: Tensor) -> Tensor:
    """Share of attributes that are told right, mean over attributes and images."""
    return ((logits > 0) == (attributes == 1)).float().mean()


class NamedAttribute(nn.Module, ABC):
    """A classifier of all attributes under the interface of one of two classes: without and with the named attribute.

    Args:
        named: Number of the attribute.
        count: Number of attributes.

    Raises:
        ValueError: If there is no such attribute.
    """

    def __init__(self, named: int, count: int) -> None:
        super().__init__()
        if not 0 <= named < count:
            raise ValueError(f"named must be one of the attributes 0..{count - 1}, got {named}")
        self.named, self.count = named, count

    @abstractmethod
    def attribute_logits(self, x_t: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits of all attributes, ``(B, A)``."""

    def of_named(self, logits: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of the named attribute from those of all."""
        named = logits[:, self.named]
        return torch.stack([torch.zeros_like(named), named], dim=1)

    def forward(self, x_t: Tensor, t: Tensor | None = None) -> Tensor:
        return self.of_named(self.attribute_logits(x_t, t))

    def check(self, names: Sequence[str], task: str | None) -> None:
        """See whether a data set's attributes, and the one that is its task, are this classifier's.

        Raises:
            ValueError: If they are not.
        """
        if len(names) != self.count or names[self.named] != task:
            raise ValueError(f"attribute {self.named} of {self.count} is not {task} of the data's {len(names)}")

    def asked(self, y: Tensor) -> Tensor:
        """Attributes ``(B, A)`` from classes ``(B,)`` of the named one, others not asked for; a matrix as it is."""
        if y.dim() == 2:
            return y
        asked = y.new_full((len(y), self.count), UNLABELED)
        asked[:, self.named] = y
        return asked


class AttributeGuidance(Denoiser):
    """``D(x_t) + scale sigma^2 / alpha grad sum_k log p(a_k | x_t)``, over the attributes asked for.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), Sec. 4.2, with the likelihood of independent attributes. (e)'s
    code has the gradient of the cross-entropy here, which leads away from them; this is minus that.

    Args:
        denoiser: Denoiser of ``p(x)``.
        classifier: ``NamedAttribute`` on noisy images.
        scale: Weight of the attributes' score; 1 is Bayes.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> class Pixels(NamedAttribute):
        ...     def attribute_logits(self, x_t, t=None):
        ...         return x_t.flatten(1)
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(sigma_min=1.0), data_std=0.5)
        >>> guided = AttributeGuidance(gaussian, Pixels(named=0, count=2), scale=2.0)
        >>> x_t, t = torch.zeros(1, 1, 1, 2), torch.zeros(1)
        >>> guided(x_t, t, torch.tensor([[1, 0]])) - gaussian(x_t, t)  # 2 sigma^2 grad log p(a | x_t)
        tensor([[[[ 1., -1.]]]])
    """

    def __init__(self, denoiser: Denoiser, classifier: NamedAttribute, scale: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.classifier, self.scale, self.process = denoiser, classifier, scale, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The guided estimate; ``y`` is of the named attribute, ``(B,)``, or of all, ``(B, A)``."""
        with torch.no_grad():
            denoised = self.denoiser(x_t, t)
        if y is None:
            return denoised
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            # Summed, not averaged, so that each image's gradient is its own.
            log_prob = attribute_log_prob(self.classifier.attribute_logits(x_t, t), self.classifier.asked(y)).sum()
            (score,) = torch.autograd.grad(log_prob, x_t)
        alpha, sigma = self.process.scales(t, like=x_t)
        return denoised + self.scale * sigma**2 / alpha * score
