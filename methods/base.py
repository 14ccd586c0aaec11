"""The contract of a method: four parts, each possibly absent, and a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jsonargparse.typing import NonNegativeFloat
from lightning import LightningModule
from torch import Tensor, nn

from methods import UNLABELED
from methods.diffusion.denoiser import Denoiser, Pretrained
from methods.diffusion.guidance import ClassifierGuidance
from methods.diffusion.likelihood import Likelihood
from methods.diffusion.noise import KeyedNoise, keyed_seed
from methods.diffusion.process import NoiseProcess
from methods.diffusion.samplers import Noise, Sampler

__all__ = ["UNLABELED", "Batch", "KeyedNoise", "Method", "Unsupported", "keyed_seed"]

Batch = dict[str, Any]
"""``{"labeled": (x, y)}`` and, where a method uses it, ``"unlabeled": x``."""


class Unsupported(NotImplementedError):
    """A method was asked for what it has no part for; the message is the reason that tables print."""


class Method(LightningModule, ABC):
    """A method of the benchmark. What it can do follows from the parts it has.

    Optimiser, schedule, weight averaging, precision and checkpoints are configured beside the method, not in it.
    Losses use no sampler, likelihood, guidance rule or scale, and no ``guides``: trainings are not known by those.

    Args:
        denoiser: ``E[x | x_t]``; without it the method cannot sample.
        classifier: ``(x_t, t) -> logits``; without it the method cannot classify.
        sampler: Turns noise into images through the denoiser.
        likelihood: Made from the denoiser; without it the method has no density.
        guidance_scale: Weight of the class score in sampling; 1 is Bayes, 0 ignores labels.
        guides: Denoiser of ``p(x | y)`` to sample from in the place of ``denoiser`` where a class is asked for.
        start: Puts published weights into the parts; called once, when a trainer begins, before that restores
            a checkpoint of ours. None afterwards.
    """

    clean_time: float = 0.0
    """Time at which the classifier reads images that come without one."""

    @property
    def second_order(self) -> bool:
        """Whether the loss is made of gradients of a network, so that training takes second derivatives of it."""
        return False

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        classifier: nn.Module | None = None,
        sampler: Sampler | None = None,
        likelihood: Callable[[Denoiser], Likelihood] | None = None,
        guidance_scale: NonNegativeFloat = 1.0,
        guides: Denoiser | None = None,
        start: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        if guidance_scale < 0:
            raise ValueError(f"guidance_scale must be >= 0, got {guidance_scale}; use 0 for unconditional samples")
        self.denoiser, self.classifier, self.sampler = denoiser, classifier, sampler
        self.likelihood = None if likelihood is None else likelihood(denoiser)
        self.guidance_scale, self.guides = guidance_scale, guides
        self.start = start

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: a checkpoint holds weights, and no settings to build a method from."""
        raise NotImplementedError(
            "a checkpoint holds weights alone; benchmark.load.load(FOLDER) builds the method that config.yaml in the "
            "folder of its training describes, and gives it those weights"
        )

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is what is minimised."""

    def guidance(self) -> Denoiser:
        """The denoiser of ``p(x | y)`` at ``guidance_scale``."""
        if self.classifier is None or self.guidance_scale == 0:
            return self.denoiser
        if self.guides is None:
            return ClassifierGuidance(self.denoiser, self.classifier, self.guidance_scale)
        return ClassifierGuidance(self.guides, self.classifier, self.guidance_scale, told=True)

    @property
    def conditional(self) -> bool:
        """Whether samples can be asked for by class."""
        return self.classifier is not None

    @property
    def noisy_process(self) -> NoiseProcess | None:
        """Process whose noisy images the classifier reads; None if it reads clean ones only."""
        return getattr(self.classifier, "process", None)

    @property
    def unsupported(self) -> dict[str, str]:
        """What the method cannot do, each with its reason."""
        reasons = {}
        if self.denoiser is None or self.sampler is None:
            reasons["sample"] = "does not generate"
        if self.classifier is None:
            reasons["classify"] = "no class posterior"
        if self.likelihood is None:
            reasons["log_prob"] = "no density"
        return reasons

    @property
    def no_denoising_error(self) -> str | None:
        """Why no error is taken of the noise that it predicts without a class; None where one is."""
        if self.denoiser is None:
            return "no denoiser"
        return None if self.denoiser.state_dict() else "its denoiser is the score model's"

    def _require(self, capability: str) -> None:
        if capability in self.unsupported:
            raise Unsupported(self.unsupported[capability])

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

    def diagnostics(self, x: Tensor, noise: Noise, times: Tensor) -> dict[str, Tensor]:
        """Checks that belong beside the likelihood, one row per image of ``x``; none for most methods.

        ``times`` ``(L,)`` are those at which noisy images are scored.
        """
        return {}

    def setup(self, stage: str) -> None:
        if self.start is not None:
            self.start()
            self.start = None

    def networks(self) -> list[nn.Module]:
        """The networks behind the parts, each once, those of a frozen denoiser included."""
        parts = [part for module in self.modules() for part in (module, *_held(module))]
        found = [part.network for part in parts if isinstance(getattr(part, "network", None), nn.Module)]
        return list(dict.fromkeys(found))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """``loss``, the sum of the terms, and each term."""
        terms = self.losses(batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **{n: term.detach() for n, term in terms.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def _evaluation_step(self, batch: Batch, part: str) -> None:
        x, y = batch["labeled"]
        with torch.enable_grad():  # a loss may be made of gradients of the network
            terms = {name: term.detach() for name, term in self.losses(batch).items()}
        over = {"batch_size": len(x), "sync_dist": True}  # weighted means over batches and devices
        self.log_dict({f"{part}/{name}": term for name, term in terms.items()}, **over)
        self.log(f"{part}/loss", torch.stack(list(terms.values())).sum(), prog_bar=True, **over)
        if self.classifier is not None:
            accuracy = (self.classify(x).argmax(1) == y).float().mean()
            self.log(f"{part}/accuracy", accuracy, prog_bar=True, **over)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Class probabilities ``(B, K)`` and true labels ``(B,)``."""
        x, y = batch["labeled"]
        return self.classify(x).softmax(1), y


def _held(module: nn.Module) -> list[nn.Module]:
    return list(module.held.modules()) if isinstance(module, Pretrained) else []
