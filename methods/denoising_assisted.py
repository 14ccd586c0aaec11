"""Denoising-assisted classifier: it sees the noisy image and the score model's one-step estimate of the clean one."""

import torch
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.guidance import AssistedClassifier, noisy_cross_entropy
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler
from methods.networks.published.load import starting_from


class Undenoised(Denoiser):
    """The noisy image itself as its own estimate, ``x_t / alpha``: no noise is predicted.

    In the place of the denoiser below it is a control: the second input is then a copy of ``x_t``, and what the
    classifier gains is owed to its further weights and training.
    """

    def __init__(self, process: NoiseProcess) -> None:
        super().__init__()
        self.process = process

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x_t)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Needs ``alpha > 0``."""
        alpha, _ = self.process.scales(t, like=x_t)
        return x_t / alpha


class DenoisingAssisted(Method):
    """Cross-entropy on ``(x_t, x_hat, t)``; guidance takes the total derivative through ``x_hat``.

    Training needs no gradient of ``x_hat``: the denoiser is frozen and runs without a graph. A guided step evaluates
    the score network once, for the score and for ``x_hat``.

    Source: (a) Sec. 3.1 and 4.1.

    Args:
        denoiser: Trained denoiser, for ``x_hat`` and to guide.
        network: ``((x_t, x_hat), log sigma) -> logits``.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
        guides: Class-conditional denoiser, trained, on the same process: what (a) guides on ImageNet in the place of
            ``denoiser``.
        checkpoint: Published weights of the network to start from, see ``load_published``. Those of a noisy
            classifier will do: the convolution of the second input then starts near zero, as in (a) for ImageNet.
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
        classifier, start = AssistedClassifier(denoiser, network), starting_from(checkpoint, network)
        super().__init__(denoiser, classifier, sampler, None, guidance_scale, guides, denoiser.process.t_min, start)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"classify": noisy_cross_entropy(self.classifier, *batch["labeled"])}
