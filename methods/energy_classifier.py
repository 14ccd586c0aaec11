"""An energy-based classifier: its logits give the class of a noisy image, and their gradient its noise."""

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from methods.base import Batch, Method
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.noise_process import NoiseProcess
from methods.diffusion.samplers import Sampler


class EnergyLogits(nn.Module):
    """Logits of ``p(y | x_t)`` whose logsumexp is ``log p(x_t)`` up to a constant.

    ``f``, ``(B, K)``, is a network's logits, and on all of them what makes the energy of Gaussian images exact,
    ``-sigma |x_t|^2 / (2 (sigma^2 + alpha^2 sd^2))`` for images N(0, sd^2 I): the network learns what they lack, and
    cross-entropy does not see it. Not in the source. Because ``logsumexp f`` is ``sigma log p``, as there, the logits
    are ``f + (1 / sigma - 1) logsumexp f``: the same posterior.

    Args:
        network: ``(x_t, log sigma) -> logits``, with ``features``.
        process: Noise process.
        data_std: ``sd``, standard deviation of the pixels in [-1, 1].
    """

    def __init__(self, network: nn.Module, process: NoiseProcess, data_std: PositiveFloat) -> None:
        super().__init__()
        self.network, self.process, self.data_std = network, process, data_std

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, K)``; needs ``sigma > 0``."""
        f = self.scaled(x_t, t)
        _, sigma = self.process.scales(t, like=f)
        return f + (1 / sigma - 1) * f.logsumexp(1, keepdim=True)

    def scaled(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``f``."""
        flat = x_t.flatten(1)
        alpha, sigma = self.process.scales(t, like=flat)
        gain = sigma / (sigma**2 + (alpha * self.data_std) ** 2)
        return self.network(x_t, self.process.log_sigma(t)) - 0.5 * gain * flat.square().sum(1, keepdim=True)

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Penultimate vector ``(B, D)``."""
        return self.network.features(x_t, self.process.log_sigma(t))


class EnergyDenoiser(Denoiser):
    """``eps = -grad logsumexp_y f_y(x_t)``. Differentiable where gradients are on, by a second backward pass.

    Args:
        logits: ``f``.
    """

    def __init__(self, logits: EnergyLogits) -> None:
        super().__init__()
        self.logits, self.process = logits, logits.process

    def logits_and_eps(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``f``, ``(B, K)``, and the noise ``(B, C, H, W)``, by one evaluation."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            if not (differentiable and x_t.requires_grad):
                x_t = x_t.detach().requires_grad_()
            logits = self.logits.scaled(x_t, t)
            # Summed, not averaged, so that each image's gradient is its own.
            (slope,) = torch.autograd.grad(logits.logsumexp(1).sum(), x_t, create_graph=differentiable)
        return (logits if differentiable else logits.detach()), -slope

    def eps(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.logits_and_eps(x_t, t)[1]

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        alpha, sigma = self.process.scales(t, like=x_t)
        return (x_t - sigma * self.eps(x_t, t)) / alpha


class EnergyClassifier(Method):
    """EGC: ``E[(eps_hat - eps)^2] + ce_weight E[alpha_t CE(softmax f)]``, ``eps_hat = -grad logsumexp f``, one network.

    ``logsumexp f`` is the log-density up to a constant, times ``sigma``: its gradient is matched to ``-eps``, not to
    the score. The squared error is a mean over pixels, of all images, labeled or not. The cross-entropy is a mean over
    the labeled images, once noisy, in the same pass, and once clean; ``alpha_t``, the signal that is left, weighs it.

    Source: Guo et al. 2023 (arXiv:2304.02012), Alg. 1 and official code, for the weights, the clean images and guidance
    by the gradient of ``log softmax f``. Its label smoothing and class-conditional variant are left out.

    Args:
        network: ``(x_t, log sigma) -> logits``, twice differentiable.
        process: Noise process.
        data_std: Standard deviation of the pixels in [-1, 1].
        ce_weight: Weight of the cross-entropy in nats; 0.001 for CIFAR, 0.005 for ImageNet in the source.
        sampler: See ``Method``.
        guidance_scale: See ``Method``.
    """

    second_order = True

    def __init__(
        self,
        network: nn.Module,
        process: NoiseProcess,
        data_std: PositiveFloat = 0.5,
        ce_weight: NonNegativeFloat = 0.001,
        sampler: Sampler | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        logits = EnergyLogits(network, process, data_std)
        super().__init__(EnergyDenoiser(logits), logits, sampler, None, guidance_scale, None, process.t_min)
        self.ce_weight = ce_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch["labeled"]
        images = torch.cat([x, batch["unlabeled"]]) if "unlabeled" in batch else x
        process = self.denoiser.process
        t = process.sample_times(len(images), x.device)
        x_t, eps = process.perturb(images, t)
        noisy, eps_hat = self.denoiser.logits_and_eps(x_t, t)
        clean = t.new_full((len(x),), self.clean_time)
        logits = torch.cat([noisy[: len(y)], self.classifier.scaled(x, clean)])
        errors = F.cross_entropy(logits, torch.cat([y, y]), reduction="none")
        signal = process.alpha(torch.cat([t[: len(y)], clean])).to(errors.dtype)
        return {
            "denoise": F.mse_loss(eps_hat, eps),
            "classify": self.ce_weight * (signal * errors).mean(),
        }
