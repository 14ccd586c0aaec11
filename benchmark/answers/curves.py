"""Denoising over all noise levels: errors, pictures, and what a classifier of noise levels says."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.noise_errors import save_noise_errors
from benchmark.answers.question import DequantisedImages
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, load_arrays, save_arrays
from benchmark.system.images import channels_last
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method

TIMES = tuple(round(0.05 * k, 2) for k in range(1, 21))
"""Times of the errors."""
SHOWN = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Times of the pictures in (c) Figs. 5 and 8."""
TRUE = (0.2, 0.4, 0.6, 0.8)
"""Times of the images whose noise level is asked for in (c) Fig. 3."""
PICTURES = 10
"""Test images that are shown."""


def curves(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the squared errors of predicted noise over ``TIMES`` and denoised test images to ``curves.npz``.

    The file holds ``errors (L, N)``, ``times (L,)`` and ``sigmas (L,)`` as ``denoise.npz`` does; ``denoised
    (S, M, H, W, C)`` in units of [-1, 1] at the times ``shown (S,)``, and in grey levels the clean ``images
    (M, H, W, C)`` and the ``mean (H, W, C)`` of the training images; of a classifier of noise levels ``log_levels
    (4, T + 2)``, the mean over test images of ``log P(level | x_t)`` less its largest, at the times ``true (4,)``.

    Source: (c) Figs. 3 to 5 and 8.
    """
    reason = method.unsupported.get("denoise")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    process, device, file = method.denoiser.process, method.device, folder / "curves.npz"
    finer = dataclasses.replace(protocol, denoise_times=TIMES)
    save_noise_errors(method.denoiser.eps, process, device, data, finer, file, partial(report, "curves"))
    arrays = load_arrays(file)
    x = DequantisedImages(data, protocol)

    def noised(time: float, rows: range) -> tuple[Tensor, Tensor]:
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, device)()
        t = process.times_at(torch.tensor(time, device=device)).expand(len(rows))
        return process.perturb(x[rows.start : rows.stop].to(device), t, eps)[0], t

    denoised = []
    for time in SHOWN:
        x_t, t = noised(time, range(min(PICTURES, len(x))))
        alpha, sigma = process.scales(t, like=x_t)
        estimate = (x_t - sigma * method.denoiser.eps(x_t, t).detach()) / alpha.clamp_min(1e-4)
        denoised.append(channels_last(estimate.float().cpu()))
    arrays |= {"denoised": np.stack(denoised), "shown": np.array(SHOWN)}
    arrays["images"] = channels_last(data.grey.quantise(x[:PICTURES]))
    arrays["mean"] = channels_last(_mean(data.images("train")[0], protocol.batch)[None])[0]
    if "diagnostics" not in method.unsupported:
        found = torch.zeros(len(TRUE), process.last + 1, dtype=torch.float64)
        for row, time in enumerate(TRUE):
            for rows in batches(len(x), protocol.batch):
                with torch.no_grad():
                    log_p = method.denoiser.levels(noised(time, rows)[0]).double().log_softmax(1).cpu()
                found[row] += (log_p - log_p.amax(1, keepdim=True)).sum(0)
        arrays |= {"log_levels": (found / len(x)).numpy(), "true": np.array(TRUE)}
    save_arrays(file, **arrays)
    return {"outputs": [file.name]}


def _mean(u: Tensor, batch: int) -> Tensor:
    """Mean of images ``(N, C, H, W)``, batch by batch: as floats, all images of faces would take 8 GB."""
    total = sum(u[rows.start : rows.stop].double().sum(0) for rows in batches(len(u), batch))
    return (total / len(u)).float()
