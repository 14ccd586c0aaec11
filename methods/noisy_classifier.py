"""Noisy classifier guidance: a classifier trained on noisy images steers a frozen score model."""

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import NoisyClassifier
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
    """

    def __init__(
        self,
        denoiser: Denoiser,
        network: nn.Module,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
        guides: Denoiser | None = None,
        checkpoint: str | None = None,
    ) -> None:
        classifier = NoisyClassifier(denoiser, network)
        start = starting_from(checkpoint, network)
        super().__init__(denoiser, classifier, sampler, guidance_scale=guidance_scale, guides=guides, start=start)
        self.clean_time = denoiser.process.t_min

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        process = self.classifier.process
        t = process.sample_times(len(x), x.device)
        x_t, _ = process.perturb(x, t)
        return {"classify": F.cross_entropy(self.classifier(x_t, t), y)}
