"""Noisy classifier guidance: a classifier trained on noisy images steers a frozen score model."""

from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import NoisyClassifier, noisy_cross_entropy
from methods.diffusion.process import TimeLaw
from methods.diffusion.samplers import Sampler
from methods.networks.published.load import starting_from


class NoisyClassifierGuidance(Method):
    """Cross-entropy over all noise levels, ``E_{t, x_t}[-log p(y | x_t, t)]``.

    Source: (a) Sec. 2.2 and 4.1.

    Args:
        denoiser: Trained denoiser to guide; training does not use it.
        network: ``(x_t, log sigma) -> logits``.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
        guides: Class-conditional denoiser, trained, on the same process: what (a) guides on ImageNet in the place of
            ``denoiser``.
        checkpoint: Published weights of the network to start from, see ``load_published``.
        times: Law of the training times; the process's own, that of (a), by default.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        network: nn.Module,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
        guides: Denoiser | None = None,
        checkpoint: str | None = None,
        times: TimeLaw | None = None,
    ) -> None:
        classifier, start = NoisyClassifier(denoiser, network), starting_from(checkpoint, network)
        super().__init__(denoiser, classifier, sampler, None, guidance_scale, guides, denoiser.process.t_min, start)
        self.times = times

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"classify": noisy_cross_entropy(self.classifier, *batch["labeled"], self.times)}
