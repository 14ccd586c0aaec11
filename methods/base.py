"""The contract of a method: four parts, each possibly absent, and a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jsonargparse.typing import NonNegativeFloat
from lightning import LightningModule
from torch import Tensor, nn

from methods import UNLABELED
from methods.diffusion.denoiser import Denoiser, networks_of
from methods.diffusion.guidance import AssistedClassifier, ClassifierGuidance, ConditionalClassifierGuidance
from methods.diffusion.levels import SinglePass
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.noise import KeyedNoise, keyed_seed
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Noise, Sampler
from methods.terms import named

__all__ = ["UNLABELED", "Batch", "KeyedNoise", "Method", "Unsupported", "keyed_seed", "networks_of"]

Batch = dict[str, Any]
"""``{"labeled": (x, y)}`` and, where a method uses it, ``"unlabeled": x``."""


class Unsupported(NotImplementedError):
    """A method lacks the part for a question; the message is the reason that tables print."""


class Method(LightningModule, ABC):
    """A method of the benchmark: its capabilities follow from its parts.

    Optimiser, schedule, weight averaging, precision and checkpoints are configured beside the method, not in it.
    Losses use no sampler, likelihood, guidance rule or scale, and no ``guides``: a change of these trains nothing anew.

    Args:
        denoiser: ``E[x | x_t]``; without it the method cannot sample.
        classifier: ``(x_t, t) -> logits``; without it the method cannot classify.
        sampler: Turns noise into images through the denoiser.
        likelihood: Made from the denoiser; without it the method has no density.
        guidance_scale: Weight of the class score in sampling; 1 is Bayes, 0 ignores labels.
        guides: Denoiser of ``p(x | y)``, in the place of ``denoiser`` where samples of a class are asked for.
        clean_time: Time at which the classifier reads clean images.
        start: Puts published weights into the parts. A trainer calls it once, before it restores a checkpoint.
    """

    second_order: bool = False
    """Tell whether the loss contains gradients of a network, so that training takes second derivatives."""

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        classifier: nn.Module | None = None,
        sampler: Sampler | None = None,
        likelihood: Callable[[Denoiser], Likelihood] | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
        guides: Denoiser | None = None,
        clean_time: float = 0.0,
        start: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        if guidance_scale < 0:
            raise ValueError(f"guidance_scale must be >= 0, got {guidance_scale}; use 0 for unconditional samples")
        self.denoiser, self.classifier, self.sampler = denoiser, classifier, sampler
        self.likelihood = None if likelihood is None else likelihood(denoiser)
        self.guidance_scale, self.guides, self.clean_time, self.start = guidance_scale, guides, clean_time, start

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is minimised."""

    def guidance(self) -> Denoiser:
        """The denoiser of ``p(x | y)`` at ``guidance_scale``."""
        if self.classifier is None or self.guidance_scale == 0:
            return self.denoiser
        if self.guides is None:
            return ClassifierGuidance(self.denoiser, self.classifier, self.guidance_scale)
        return ConditionalClassifierGuidance(self.guides, self.classifier, self.guidance_scale)

    @property
    def conditional(self) -> bool:
        """Tell whether samples can be asked for by class."""
        return self.classifier is not None

    @property
    def noisy_process(self) -> NoiseProcess | None:
        """Process whose noisy images the classifier reads; None if it reads clean ones only."""
        return getattr(self.classifier, "process", None)

    @property
    def unsupported(self) -> dict[str, str]:
        """Questions that the method cannot answer, each with the reason.

        Its parts answer the last three: ``classifier.masked``, ``likelihood.diagnostics`` and ``denoiser.eps``.
        """
        frozen = self.denoiser is not None and not self.denoiser.state_dict()
        lacking = {
            "sample": (self.denoiser is None or self.sampler is None) and "does not generate",
            "classify": self.classifier is None and "no class posterior",
            "log_prob": self.likelihood is None and "no density",
            "masked": not isinstance(self.classifier, AssistedClassifier) and "reads one image, not two",
            "diagnostics": not isinstance(self.likelihood, SinglePass) and "no classifier of noise levels",
            "denoise": "its denoiser is the score model's" if frozen else self.denoiser is None and "no denoiser",
        }
        return {question: reason for question, reason in lacking.items() if reason}

    def _require(self, question: str) -> None:
        if question in self.unsupported:
            raise Unsupported(self.unsupported[question])

    def sample(self, noise: Noise, y: Tensor | None = None) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] up to the sampler's overshoot, of classes ``y`` if given."""
        self._require("sample")
        return self.sampler(self.guidance() if y is not None else self.denoiser, noise, y)

    def classify(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits ``(B, K)`` of clean images, or of images noised to times ``t``."""
        self._require("classify")
        return self.classifier(x, x.new_full((len(x),), self.clean_time) if t is None else t)

    def log_prob(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Log-density of images in nats, ``(B,)``; ``noise`` feeds a stochastic estimate."""
        self._require("log_prob")
        return self.likelihood(x, noise)

    def setup(self, stage: str) -> None:
        if self.start is not None:
            self.start()
            self.start = None

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The sum of the loss terms as ``loss``, and each term."""
        terms = named(self.losses(batch), type(self).__name__)
        return {"loss": torch.stack(list(terms.values())).sum(), **{n: term.detach() for n, term in terms.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The same of labeled images, and a classifier's ``accuracy``."""
        with torch.enable_grad():  # a loss may contain gradients of a network
            terms = {name: term.detach() for name, term in named(self.losses(batch), type(self).__name__).items()}
        found = {"loss": torch.stack(list(terms.values())).sum(), **terms}
        if self.classifier is not None:
            x, y = batch["labeled"]
            found["accuracy"] = (self.classify(x).argmax(1) == y).float().mean()
        return found

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Class probabilities ``(B, K)`` and true labels ``(B,)``."""
        x, y = batch["labeled"]
        return self.classify(x).softmax(1), y

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a checkpoint holds no settings to build a method from."""
        raise NotImplementedError("a checkpoint holds weights alone; benchmark.load.load(FOLDER) builds their method")
