"""Classification diffusion on a straight line from data to noise, CDM(OT)."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.levels import LevelClassifier, SinglePass
from methods.diffusion.samplers import Sampler
from methods.diffusion.transport import StraightLine, TransportDenoiser


class TransportClassification(Method):
    """``ce_weight CE(f(x_t), t) + mse_weight mean (eps_hat - eps)^2``, ``t`` uniform on all levels.

    ``eps_hat = sigma_t (x_t - grad (f[t] - f[T]))``. Without classes.

    Source: (c), later text, CDM(OT).

    Args:
        network: ``(x, None) -> (B, steps + 2)``, such as ``LevelNetwork``.
        process: Noise levels.
        sampler: See ``Method``.
        ce_weight: Weight of the cross-entropy in nats; (c) 0.001.
        mse_weight: Weight of the mean squared error of the noise.
    """

    second_order = True

    def __init__(
        self,
        network: nn.Module,
        process: StraightLine,
        sampler: Sampler | None = None,
        ce_weight: NonNegativeFloat = 0.001,
        mse_weight: PositiveFloat = 1.0,
    ) -> None:
        denoiser = TransportDenoiser(LevelClassifier(network, process))
        super().__init__(denoiser, None, sampler, SinglePass)
        self.ce_weight, self.mse_weight = ce_weight, mse_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, _ = batch["labeled"]
        denoiser, process = self.denoiser, self.denoiser.process
        t = denoiser.levels.times_at(torch.rand(len(x), device=x.device))
        x_t, eps = process.perturb(x, t)
        logits, slope = denoiser.logits_and_slope(x_t, t)
        return {
            "level": self.ce_weight * F.cross_entropy(logits, process.index(t)),
            "denoise": self.mse_weight * F.mse_loss(denoiser.eps_from(x_t, t, slope), eps),
        }
