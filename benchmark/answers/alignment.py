"""Alignment of a classifier's gradients with images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.question import asked_images
from benchmark.metrics.arrays import cosines
from benchmark.metrics.structure import neighbour_correlation
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.images import channels_last
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method

TIMES = (0.3, 0.35)
"""Times of the gradient pictures of (a), Figs. 2 and 3; those of the protocol's ``denoise_times`` come beside them."""
PICTURES = 10
"""Test images whose gradients are kept as pictures."""
INPUTS = ("noisy", "clean", "denoised")
"""Images at which gradients are taken: ``x_t``, ``alpha x`` and ``alpha D(x_t)``, each at time ``t``."""
OF_NOISY = ("smoothness", "along", "squared")
"""Further scores of gradients at noisy images."""


def alignment(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write how gradients ``g = grad log p(y | x_t)`` of true labels go along with test images to ``alignment.npz``.

    The exact ``g`` is ``alpha / sigma^2 (E[x | x_t, y] - E[x | x_t])``. If ``D`` is right and ``g`` depends on ``x_t``
    and ``y`` alone, the mean inner product of ``g`` with what denoising misses, ``x - D(x_t)``, is therefore
    ``sigma^2 / alpha`` times that of ``g`` with the exact one: no exact score is needed. This holds at noisy and at
    denoised images; at clean ones ``g`` depends on ``x`` itself. Cosines also divide by the length of ``x - D(x_t)``,
    most of which the class may not tell: those of the exact ``g`` can lie far below 1.

    The file holds the cosine of ``g`` with ``x - D(x_t)`` at each of ``INPUTS``, ``<input> (L, N)``; of ``g`` at noisy
    images ``smoothness (L, N)``, the correlation of neighbouring pixels, ``along (L, N)``, ``alpha / sigma^2`` times
    its inner product with ``x - D(x_t)``, and ``squared (L, N)``, its squared length; ``times (L,)`` with sigma / alpha
    in ``sigmas (L,)``; and of the first images the pictures ``images (M, H, W, C)`` and ``gradients (L, M, H, W, C)``.
    """
    process = method.noisy_process
    if process is None or method.denoiser is None:
        return {"outputs": [], "reason": "reads clean images only" if process is None else "no denoiser"}
    u, y = asked_images(data, protocol)
    quantiles = sorted({*TIMES, *protocol.denoise_times})
    times = process.times_at(torch.tensor(quantiles, device=method.device))
    scores = {name: np.zeros((len(times), len(y)), np.float32) for name in (*INPUTS, *OF_NOISY)}
    pictures = np.zeros((len(times), min(PICTURES, len(y)), *channels_last(u[:1]).shape[1:]), np.float32)
    for rows in batches(len(y), protocol.batch):
        part = slice(rows.start, rows.stop)
        x, of = data.grey.centre(u[part]).to(method.device), y[part].to(method.device)
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, method.device)()
        for level, t in enumerate(times):
            t = t.expand(len(x))
            x_t, _ = process.perturb(x, t, eps)
            alpha, sigma = process.scales(t, like=x)
            by_score = (alpha / sigma**2).flatten().cpu().numpy()
            with torch.no_grad():
                denoised = method.denoiser(x_t, t)
            missed = (x - denoised).flatten(1).cpu().numpy()
            for name, at in zip(INPUTS, (x_t, alpha * x, alpha * denoised), strict=True):
                g = _gradient(method, at, t, of)
                flat = g.flatten(1).numpy()
                scores[name][level, part] = cosines(flat, missed)
                if name == "noisy":
                    scores["smoothness"][level, part] = neighbour_correlation(g.numpy())
                    scores["along"][level, part] = by_score * (flat * missed).sum(1)
                    scores["squared"][level, part] = (flat**2).sum(1)
                    kept = pictures[level, part]
                    kept[:] = channels_last(g[: len(kept)])
        report("alignment", rows.stop, len(y))
    sigmas = process.log_sigma(times).exp().cpu().numpy()
    shown = {"images": channels_last(u[:PICTURES]), "labels": y[:PICTURES].numpy(), "gradients": pictures}
    save_arrays(folder / "alignment.npz", **scores, **shown, times=np.array(quantiles), sigmas=sigmas)
    return {"outputs": ["alignment.npz"]}


def _gradient(method: Method, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """``grad log p(y | x_t)`` through every path from ``x_t`` to the logits, like ``x_t``, on the CPU."""
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        log_posterior = method.classifier(x_t, t).float().log_softmax(1)
        return torch.autograd.grad(log_posterior.gather(1, y[:, None]).sum(), x_t)[0].float().cpu()
