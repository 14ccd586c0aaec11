"""Logits of test images: clean, at random noise levels, and at each level of a curve."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.question import asked_images
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def classify(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the logits of the test images to ``logits.npz``.

    The file holds ``y (N,)``, ``clean (N, K)`` and, for a classifier of noisy images, ``noisy (draws, N, K)``,
    ``levels (L, N, K)``, ``level_times (L,)``, ``level_sigmas (L,)``; for one of two inputs also ``masked_x`` and
    ``masked_denoised``, like ``noisy`` and on its noisy images; for others ``masked`` is the reason why not. Noise
    levels and noise depend on ``(protocol.seed, image, draw)`` alone: classifiers of one process read the same noisy
    images.
    """
    reason = method.unsupported.get("classify")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    u, y = asked_images(data, protocol)
    process, device = method.noisy_process, method.device
    draws, levels = (protocol.noisy_draws, protocol.levels) if process is not None else (0, 0)
    rng = np.random.default_rng([protocol.seed, 1])
    quantiles = torch.from_numpy(rng.random((draws, len(y)), dtype=np.float32))
    curve = (torch.arange(levels, dtype=torch.float32, device=device) + 0.5) / levels if levels else None
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for rows in batches(len(y), protocol.batch):
            part = slice(rows.start, rows.stop)
            x = data.grey.centre(u[part]).to(device)
            answers = {"clean": method.classify(x)}
            if process is not None:
                noise = KeyedNoise(protocol.seed, "noisy", rows, data.shape, device)
                answers |= _noisy(method, x, quantiles[:, part].to(device), process.times_at(curve), noise)
            for name, logits in answers.items():
                if name not in found:  # made whole: of a thousand classes, parts and their sum would not fit
                    found[name] = torch.empty(*logits.shape[:-2], len(y), logits.shape[-1])
                found[name][..., part, :] = logits.float().cpu()
            report("classify", rows.stop, len(y))
    arrays = {"y": y.numpy()} | {name: logits.numpy() for name, logits in found.items()}
    if process is not None:
        times = process.times_at(curve)
        arrays |= {"level_times": times.cpu().numpy(), "level_sigmas": process.log_sigma(times).exp().cpu().numpy()}
    save_arrays(folder / "logits.npz", **arrays)
    nfe = getattr(method.classifier, "nfe", 1)
    return {"outputs": ["logits.npz"], "masked": method.unsupported.get("masked"), "nfe": nfe}


def _noisy(method: Method, x: Tensor, quantiles: Tensor, curve: Tensor, noise: KeyedNoise) -> dict[str, Tensor]:
    """Logits at random times ``(draws, B, K)``, also with inputs masked, and at those of the curve ``(L, B, K)``."""
    process = method.noisy_process
    found: dict[str, list[Tensor]] = {"noisy": [], "levels": []}
    for quantile in quantiles:
        t = process.times_at(quantile)
        x_t, _ = process.perturb(x, t, noise())
        found["noisy"].append(method.classify(x_t, t))
        if "masked" not in method.unsupported:
            for name, logits in method.classifier.masked(x_t, t).items():
                found.setdefault(f"masked_{name}", []).append(logits)
    eps = noise()
    for t in curve:
        t = t.expand(len(x))
        found["levels"].append(method.classify(process.perturb(x, t, eps)[0], t))
    return {name: torch.stack(logits) for name, logits in found.items()}
