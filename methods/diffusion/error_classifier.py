"""The class posterior of a class-conditional denoiser, read from its errors: the diffusion classifier."""

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from methods.diffusion.denoiser import Denoiser
from methods.diffusion.noise import KeyedNoise

NEAR = 0.1
"""Least added noise over the noise that an image has; what less would tell is of its square."""


class ErrorClassifier(nn.Module):
    """``p(y | x_t)`` by Bayes' rule, classes alike, over errors of predicted noise: ``K times`` evaluations an image.

    With ``r = sigma / alpha``, noise ``v eps`` on ``x_t / alpha_t`` leads to the level ``s`` with ``r_s^2 = r_t^2 +
    v^2``, always above ``t``. The mean of ``eps`` given ``x_s`` and ``y`` is ``(v / r_s) eps_hat_y(x_s)``, because
    ``eps`` is that part of all noise there, and for the optimal denoiser

        ``log p(x_t | y) = c - int E ||(v / r_s) eps_hat_y(x_s) - eps||^2 d log v``

    with ``c`` the same for all classes. For a clean image ``v = r_s``: the error itself, and equal weights at times
    even in ``log r``. The integral is a trapezoidal sum over ``times`` levels, even in ``log v`` up to the last level
    of the process, with one draw of ``eps`` each. The draws depend on ``(seed, number of the level)`` alone: classes
    share them, and so do images, whose answers therefore do not depend on their batch. A discrete process goes to its
    nearest levels, each weighed by the ``log v`` that there is.

    Source: Li et al. 2023 (arXiv:2303.16203), official code: one file of noise for all images and classes, one grid of
    times; Chen et al. 2024 (arXiv:2305.15241). Both codes take the mean over even times with weight 1.
    For noisy images, the exact posterior in official code of Chen et al. 2024 (arXiv:2402.02316), here without a grid's
    weights in it. The integral is our derivation from the relation of information and mean squared error, Guo et al.
    2005 (arXiv:cs/0412108); tests hold it against exact posteriors.

    Args:
        denoiser: Of ``p(x | y)``; on a process that it was trained on.
        classes: Number of classes ``K``.
        times: Levels of the sum, at least 2.
        sigma_min: Least noise ``v``, in units of [-1, 1]; that of the process's first level if not given.
        sigma_max: Noise ``r_s`` of the last level, likewise.
        seed: Of the noise.

    Raises:
        ValueError: If there is one level alone, or no noise between the two.

    Example:
        >>> from methods.baselines.gaussian import GaussianDenoiser
        >>> from methods.diffusion.process import VarianceExploding
        >>> classifier = ErrorClassifier(GaussianDenoiser([1, 1, 2], 2, VarianceExploding()), classes=2)
        >>> classifier(torch.ones(1, 1, 1, 2), t=torch.zeros(1)).softmax(1)  # two classes that are alike
        tensor([[0.5000, 0.5000]])
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classes: PositiveInt,
        times: PositiveInt = 20,
        sigma_min: PositiveFloat | None = None,
        sigma_max: PositiveFloat | None = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        if times < 2:
            raise ValueError(f"an integral over noise levels needs times >= 2, got {times}")
        if sigma_min is not None and sigma_max is not None and not sigma_min < sigma_max:
            raise ValueError(f"need sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}")
        self.denoiser, self.process = denoiser, denoiser.process
        self.classes, self.times, self.seed = classes, times, seed
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    @property
    def nfe(self) -> int:
        """Evaluations of the denoiser for the answer about one image."""
        return self.classes * self.times

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``log p(x_t | y)`` of every class up to what is common to all, ``(B, K)``; differentiable once in ``x_t``."""
        sloped = torch.is_grad_enabled() and x_t.requires_grad
        start = x_t.detach().requires_grad_(sloped)
        noise = KeyedNoise(self.seed, "error_classifier", [0], x_t.shape[1:], x_t.device)
        alpha, _ = self.process.scales(t, like=x_t)
        errors = x_t.new_zeros(len(x_t), self.classes)
        slopes = x_t.new_zeros(len(x_t), self.classes, *x_t.shape[1:]) if sloped else None
        for s, r_s, v, weight in zip(*self._levels(t), strict=True):
            v, part, weight = (value.to(x_t.dtype).view(-1, *[1] * (x_t.dim() - 1)) for value in (v, v / r_s, weight))
            eps = noise().to(x_t.dtype)
            for y in range(self.classes):
                with torch.set_grad_enabled(sloped):
                    x_s = self.process.scales(s, like=x_t)[0] * (start / alpha + v * eps)
                    eps_hat = self.denoiser.eps(x_s, s, torch.full((len(x_t),), y, device=x_t.device))
                    error = (weight * (part * eps_hat - eps).square()).flatten(1).sum(1)
                if slopes is not None:  # taken at once: a graph of all evaluations would not fit
                    slopes[:, y] += torch.autograd.grad(error.sum(), start)[0]
                errors[:, y] += error.detach()
        if slopes is not None:
            errors = errors + ((x_t - start.detach())[:, None] * slopes).flatten(2).sum(2)
        return -errors

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Times ``s`` with ``r_s``, the noise ``v`` that leads there, and its weight in the sum, ``(times, B)``."""
        r = self.process.log_sigma(t).exp()
        first, last = self.process.log_sigma(t.new_tensor([self.process.t_min, self.process.t_max])).exp()
        low = torch.maximum(NEAR * r, first if self.sigma_min is None else torch.full_like(first, self.sigma_min))
        last = last if self.sigma_max is None else last.clamp(max=self.sigma_max)
        high = torch.maximum((last**2 - r**2).clamp(min=0).sqrt(), low)
        rising = torch.linspace(0, 1, self.times, dtype=r.dtype, device=r.device)[:, None]
        wanted = low * (high / low) ** rising
        s = self.process.time(-torch.log(r**2 + wanted**2)).clamp(self.process.t_min, self.process.t_max)
        r_s = self.process.log_sigma(s).exp()
        v = (r_s**2 - r**2).clamp(min=0).sqrt()  # of the level that there is
        width = torch.log(torch.minimum(torch.maximum(v, low), high)).diff(dim=0) / 2
        weight = torch.zeros_like(v)
        weight[:-1] += width
        weight[1:] += width
        return s, r_s, v, weight
