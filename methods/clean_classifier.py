"""A classifier of clean images guides through the denoiser's estimate; it may be trained on such estimates too."""

from collections.abc import Callable

import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoised_guidance import DenoisedClassifier, TrainingFreeGuidance
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.samplers import Sampler
from methods.networks.published.choice import weights_of


class CleanClassifierGuidance(Method):
    """``CE(x) + denoised_weight CE(D(x_t))`` at random times: training-free guidance at weight 0, DiffAug at 1.

    The classifier is not told the noise. Noisy images are denoised in one step and classified. Estimates are not
    clipped; those of DiffAug's code are.

    Source: Ye et al. 2024 (arXiv:2409.15761) for weight 0; Sastry et al. 2024 (arXiv:2306.09192v2) and official code,
    training_scripts/diffbase.py, for weight 1: the sum of both cross-entropies, times uniform over all levels.

    Args:
        denoiser: Trained denoiser, to guide and for ``D(x_t)``; with weight 0 training does not use it.
        network: ``x -> logits``, with ``features(x)``. If it has ``weights``, its ``start`` reads them.
        denoised_weight: Weight of the cross-entropy of estimates.
        sampler: See ``Method``.
        guidance_rule: ``(denoiser, classifier, scale) -> denoiser`` with a ``scale``: how labels steer sampling.
        guidance_scale: See ``Method``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        network: nn.Module,
        denoised_weight: NonNegativeFloat = 0.0,
        sampler: Sampler | None = None,
        guidance_rule: Callable[[Denoiser, nn.Module, float], Denoiser] = TrainingFreeGuidance,
        guidance_scale: float = 1.0,
    ) -> None:
        classifier = DenoisedClassifier(denoiser, network)
        super().__init__(
            denoiser, classifier, sampler, None, guidance_scale, None, denoiser.process.t_min, start=weights_of(network)
        )
        self.denoised_weight = denoised_weight
        # Past nn.Module's registration: guidance has no weights of its own, and checkpoints are the same for any rule.
        self.__dict__["guided"] = guidance_rule(denoiser, classifier, guidance_scale)

    def guidance(self) -> Denoiser:
        if self.guidance_scale == 0:
            return self.denoiser
        self.guided.scale = self.guidance_scale
        return self.guided

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        terms = {"classify": F.cross_entropy(self.classifier.network(x), y)}
        if self.denoised_weight:
            process = self.classifier.process
            t = process.sample_times(len(x), x.device)
            denoised = self.classifier.denoised(process.perturb(x, t)[0], t)
            terms["classify_denoised"] = self.denoised_weight * F.cross_entropy(self.classifier.network(denoised), y)
        return terms
