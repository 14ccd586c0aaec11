"""Classifiers of noisy images, and guidance: a denoiser of ``p(x | y)`` made from a denoiser of ``p(x)``."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import UNLABELED
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.process import TimeLaw, UniformTimes


class CleanClassifier(nn.Module):
    """A network without a noise level under the interface of a classifier of noisy images; ``t`` is ignored.

    Example:
        >>> classifier = CleanClassifier(nn.Flatten())
        >>> classifier(torch.ones(1, 1, 1, 2), t=torch.zeros(1))
        tensor([[1., 1.]])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return self.network(x)

    def features(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(x)


class NoisyClassifier(nn.Module):
    """``p(y | x_t)`` by a network that is told the log noise level.

    Args:
        denoiser: Denoiser to guide; the classifier reads the noisy images of its process, and uses no more of it.
        network: ``(x_t, log sigma) -> logits``, with ``features(x_t, log sigma)``.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding())
        >>> classifier = NoisyClassifier(gaussian, lambda x_t, log_sigma: x_t.flatten(1))
        >>> classifier(torch.ones(1, 1, 1, 2), t=torch.zeros(1))
        tensor([[1., 1.]])
    """

    def __init__(self, denoiser: Denoiser, network: nn.Module) -> None:
        super().__init__()
        self.network, self.process = network, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.network(x_t, self.process.log_sigma(t))

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(x_t, self.process.log_sigma(t))


class BayesRule(nn.Module):
    """``p(y | x_t)`` of a denoiser that knows its joint density: no weights of its own.

    Args:
        denoiser: With ``log_joint(x_t, t)``, ``log p(x_t, y)`` of every class up to what is common to all, ``(B, K)``.

    Example:
        >>> from methods.baselines.gaussian import GaussianDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> classifier = BayesRule(GaussianDenoiser([1, 1, 2], 2, VarianceExploding()))  # two classes that are alike
        >>> classifier(torch.ones(1, 1, 1, 2), t=torch.zeros(1)).softmax(1)
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.__dict__["joint"] = denoiser  # registered once, as the method's denoiser
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.__dict__["joint"].log_joint(x_t, t)


class AssistedClassifier(nn.Module):
    """``p(y | x_t, x_hat)`` with ``x_hat`` the estimated mean of the noise kernel, ``alpha E[x | x_t]``.

    Source: (a) Sec. 3.1. ``x_hat`` is not clamped.

    Args:
        denoiser: Frozen denoiser that makes ``x_hat``.
        network: ``((x_t, x_hat), log sigma) -> logits``, with ``features``.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(), data_std=0.5)  # of images N(0, 0.25 I)
        >>> classifier = AssistedClassifier(gaussian, lambda pair, log_sigma: (pair[0] - pair[1]).flatten(1))
        >>> classifier(torch.ones(1, 1, 1, 2), t=torch.ones(1))  # all but noise
        tensor([[1.0000, 1.0000]])
    """

    def __init__(self, denoiser: Denoiser, network: nn.Module) -> None:
        super().__init__()
        self.network, self.denoiser = network, denoiser

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        return self.given(x_t, self._denoised(x_t, t), t)

    def given(self, x_t: Tensor, denoised: Tensor, t: Tensor) -> Tensor:
        """Logits when ``E[x | x_t]`` is at hand already."""
        return self.network(self._pair(x_t, denoised, t), self.process.log_sigma(t))

    def masked(self, x_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Logits with zeros in the place of one input: ``x``, the noisy image, or ``denoised``, ``x_hat``.

        Source: (a), masked inputs.
        """
        noisy, denoised = self._pair(x_t, self._denoised(x_t, t), t)
        log_sigma, nothing = self.process.log_sigma(t), torch.zeros_like(x_t)
        return {
            "x": self.network((nothing, denoised), log_sigma),
            "denoised": self.network((noisy, nothing), log_sigma),
        }

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(self._pair(x_t, self._denoised(x_t, t), t), self.process.log_sigma(t))

    def _denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``E[x | x_t]`` of the frozen denoiser, with a graph only if ``x_t`` asks for a gradient."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and x_t.requires_grad):
            return self.denoiser(x_t, t)

    def _pair(self, x_t: Tensor, denoised: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, _ = self.process.scales(t, like=x_t)
        return x_t, alpha * denoised


class ClassifierGuidance(Denoiser):
    """``D(x_t) + scale sigma^2 / alpha grad log p(y | x_t)``: the denoiser of ``p(x) p(y | x)^scale``.

    The gradient is total: it flows through every path from ``x_t`` to the logits, the denoiser of a denoising-assisted
    classifier included. If that is the guided denoiser, it is evaluated once for both uses.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), Sec. 4.2, in denoiser form; (a) Sec. 3.1, total derivative.

    Args:
        denoiser: Denoiser of ``p(x)``.
        classifier: ``(x_t, t) -> logits``.
        scale: Weight of the class score; 1 is Bayes.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(sigma_min=1.0), data_std=0.5)
        >>> classifier = NoisyClassifier(gaussian, lambda x_t, log_sigma: x_t.flatten(1))
        >>> guided = ClassifierGuidance(gaussian, classifier, scale=2.0)
        >>> x_t, t, y = torch.ones(1, 1, 1, 2), torch.zeros(1), torch.tensor([0])
        >>> guided(x_t, t, y) - gaussian(x_t, t)  # 2 sigma^2 grad log p(y | x_t)
        tensor([[[[ 1., -1.]]]])
    """

    def __init__(self, denoiser: Denoiser, classifier: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.classifier, self.scale = denoiser, classifier, scale
        self.process = denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser(x_t, t)
        if isinstance(self.classifier, AssistedClassifier) and self.classifier.denoiser is self.denoiser:
            with torch.enable_grad():
                x_t = x_t.detach().requires_grad_()
                denoised = self.denoiser(x_t, t)
                score = _score(self.classifier.given(x_t, denoised, t), y, x_t)
        else:
            with torch.no_grad():
                denoised = self.denoiser(x_t, t)
            score = class_score(self.classifier, x_t, t, y)
        return denoised.detach() + _step(self.scale, self.process, t, x_t) * score


class ConditionalClassifierGuidance(ClassifierGuidance):
    """``D(x_t, y) + scale sigma^2 / alpha grad log p(y | x_t)``: the denoiser of ``p(x | y) p(y | x)^scale``.

    Source: Dhariwal and Nichol 2021 (arXiv:2105.05233), Table 4; (a), ImageNet.

    Args:
        denoiser: Denoiser of ``p(x | y)``; unlike that of ``ClassifierGuidance`` it is told the class.
        classifier: ``(x_t, t) -> logits``.
        scale: Weight of the class score.

    Example:
        >>> from methods.diffusion.denoiser import EDMDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussian = EDMDenoiser(lambda *_: 0, VarianceExploding(sigma_min=1.0), data_std=0.5)
        >>> classifier = NoisyClassifier(gaussian, lambda x_t, log_sigma: x_t.flatten(1))
        >>> guided = ConditionalClassifierGuidance(gaussian, classifier, scale=2.0)
        >>> x_t, t, y = torch.ones(1, 1, 1, 2), torch.zeros(1), torch.tensor([0])
        >>> guided(x_t, t, y) - gaussian(x_t, t)  # 2 sigma^2 grad log p(y | x_t)
        tensor([[[[ 1., -1.]]]])
    """

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.denoiser(x_t, t)
        with torch.no_grad():
            denoised = self.denoiser(x_t, t, y)
        return denoised + _step(self.scale, self.process, t, x_t) * class_score(self.classifier, x_t, t, y)


class ClassifierFreeGuidance(Denoiser):
    """``D(x_t) + scale (D(x_t, y) - D(x_t))``: ``scale`` 1 is the plain conditional denoiser.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), with ``scale = 1 + w``.

    Example:
        >>> from methods.baselines.gaussian import GaussianDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> gaussians = GaussianDenoiser([1, 1, 2], 2, VarianceExploding())
        >>> guided = ClassifierFreeGuidance(gaussians, scale=2.0)
        >>> x_t, t, y = torch.ones(1, 1, 1, 2), torch.ones(1), torch.tensor([0])
        >>> torch.equal(guided(x_t, t, y), gaussians(x_t, t))  # the classes are alike
        True
    """

    def __init__(self, denoiser: Denoiser, scale: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.scale, self.process = denoiser, scale, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None or self.scale == 1:
            return self.denoiser(x_t, t, y)
        free = self.denoiser(x_t, t)
        return free + self.scale * (self.denoiser(x_t, t, y) - free)


def told_labels(batch: dict[str, Any], dropout: float) -> tuple[Tensor, Tensor]:
    """Images of a batch, ``(B, C, H, W)``, and the labels ``(B,)`` that a class-conditional network is told.

    Images without a label, and a random share ``dropout`` of the others, are ``UNLABELED``.
    """
    x, y = batch["labeled"]
    if "unlabeled" in batch:
        x = torch.cat([x, batch["unlabeled"]])
        y = torch.cat([y, y.new_full((len(batch["unlabeled"]),), UNLABELED)])
    if dropout:
        y = y.masked_fill(torch.rand(len(y), device=y.device) < dropout, UNLABELED)
    return x, y


def class_log_prob(logits: Tensor, y: Tensor) -> Tensor:
    """``log p(y)`` under ``softmax(logits)``, at least in single precision, ``(B,)``."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.log_softmax(logits, dim=-1, dtype=dtype).gather(1, y[:, None]).squeeze(1)


def noisy_cross_entropy(classifier: nn.Module, x: Tensor, y: Tensor, times: TimeLaw | None = None) -> Tensor:
    """``E_{t, x_t}[-log p(y | x_t)]`` of images ``x`` and labels ``y``, with one draw of ``t`` and ``x_t`` an image.

    ``times`` is the law of ``t``, the process's own by default.
    """
    t = (times or UniformTimes())(classifier.process, len(x), x.device)
    x_t, _ = classifier.process.perturb(x, t)
    return F.cross_entropy(classifier(x_t, t), y)


def logits_and_score(
    classifier: nn.Module, x_t: Tensor, t: Tensor, log_density: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient in ``x_t`` of a log-density ``(B,)`` that they define; losses can be made of both."""
    logits = classifier(x_t.requires_grad_(), t)
    return logits, torch.autograd.grad(log_density(logits).sum(), x_t, create_graph=True)[0]


def class_score(classifier: nn.Module, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """``grad log p(y | x_t)``, like ``x_t``."""
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        return _score(classifier(x_t, t), y, x_t)


def _score(logits: Tensor, y: Tensor, x_t: Tensor) -> Tensor:
    # Summed, not averaged, so that each image's gradient is its own.
    return torch.autograd.grad(class_log_prob(logits, y).sum(), x_t)[0]


def _step(scale: float, process: NoiseProcess, t: Tensor, x_t: Tensor) -> Tensor:
    """``scale sigma^2 / alpha``, by which a score moves a denoiser."""
    alpha, sigma = process.scales(t, like=x_t)
    return scale * sigma**2 / alpha
