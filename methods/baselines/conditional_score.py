"""Class-conditional score models, with or without classifier-free guidance: generators that need no classifier."""

import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import ClassifierFreeGuidance, told_labels
from methods.diffusion.process import TimeLaw
from methods.diffusion.samplers import Sampler


class ConditionalScoreModel(Method):
    """Denoising score matching by a network that is told the class, or that there is none.

    ``Cond`` of (d) has ``label_dropout`` 0 and labeled images alone: its network has never seen an image without a
    class, so only ``guidance_scale`` 1 makes sense. ``CFG-labeled`` drops some of the labels, and ``CFG-all`` also
    takes unlabeled images, without a class.

    Source: (d) Table 1; Ho and Salimans 2022 (arXiv:2207.12598), Alg. 1.

    Args:
        denoiser: Of a network with ``classes``.
        times: Law of the training times.
        label_dropout: Share of training labels that the network is not told.
        sampler: See ``Method``.
        guidance_scale: Of classifier-free guidance; 1 is the plain conditional model, 0 ignores labels.

    Raises:
        ValueError: If the network knows no classes.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        times: TimeLaw,
        label_dropout: ClosedUnitInterval = 0.1,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        if getattr(getattr(denoiser, "network", None), "classes", None) is None:
            raise ValueError("a conditional score model needs a network that is told classes; give it 'classes'")
        super().__init__(denoiser=denoiser, sampler=sampler, guidance_scale=guidance_scale)
        self.times, self.label_dropout = times, label_dropout

    @property
    def conditional(self) -> bool:
        return True

    @property
    def unsupported(self) -> dict[str, str]:
        alone = {} if self.label_dropout else {"denoise": "trained with classes alone"}
        return super().unsupported | alone

    def guidance(self) -> Denoiser:
        return ClassifierFreeGuidance(self.denoiser, self.guidance_scale)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = told_labels(batch, self.label_dropout if self.training else 0.0)
        t = self.times(self.denoiser.process, len(x), x.device)
        return {"denoise": self.denoiser.matching_loss(x, t, torch.randn_like(x), y).mean()}
