"""Steps by which samples come about: images, denoised images and classes on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.watched import Watched
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import scale_tag
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.images import channels_last
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method

IMAGES = 100
"""Samples that are followed: the first of the stored ones."""
STRIP = 11
"""Steps that are kept as pictures and as points of curves, evenly spaced, the first and last among them."""
PICTURES = 10
"""Samples that are kept as pictures."""


def steps(
    method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report, scale: float | None
) -> dict[str, Any]:
    """Write the steps of the first samples at a guidance scale to ``steps@<scale>.npz``.

    They have the noise and classes of the stored samples. The file holds at each level that the sampler visits, from
    noise to image, ``times (L,)``, ``sigmas (L,)``, and ``probabilities (L, N, K)`` of the method's own classifier of
    noisy images, if it has one; the samples' ``labels (N,)``; and at the levels ``strip (S,)`` the first
    samples' ``noisy (S, M, H, W, C)`` and ``denoised``, the guided estimate of the clean image, in units of [-1, 1].
    """
    reason = method.unsupported.get("sample")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    n = min(IMAGES, protocol.samples)
    labels = torch.arange(n) % data.classes if scale else torch.full((n,), -1)
    denoiser = method.guidance() if scale else method.denoiser
    levels = denoiser.process.levels(method.sampler.times(denoiser.process))
    strip = np.unique(np.linspace(0, len(levels) - 1, STRIP).round().astype(int))
    found: dict[str, list[list[np.ndarray]]] = {}
    for rows in batches(n, protocol.batch):
        seen: dict[str, list[np.ndarray]] = {}
        first = slice(0, max(0, PICTURES - rows.start))

        def look(step: int, x_t: Tensor, t: Tensor, estimate: Tensor, seen: Any = seen, first: slice = first) -> None:
            if method.noisy_process is not None:
                probabilities = method.classifier(x_t, t).float().softmax(1)
                seen.setdefault("probabilities", []).append(probabilities.cpu().numpy())
            if step in strip:
                seen.setdefault("noisy", []).append(channels_last(x_t[first].float().cpu()))
                seen.setdefault("denoised", []).append(channels_last(estimate[first].float().cpu()))

        y = labels[rows.start : rows.stop].to(method.device) if scale else None
        noise = KeyedNoise(protocol.seed, "sample", rows, data.shape, method.device)
        method.sampler(Watched(denoiser, method.sampler.evaluations_per_step, look), noise, y)
        for name, values in seen.items():
            found.setdefault(name, []).append(values)
        report(f"steps{scale_tag(scale)}", rows.stop, n)
    arrays = {name: np.concatenate([np.stack(part) for part in parts], 1) for name, parts in found.items()}
    file = f"steps{scale_tag(scale)}.npz"
    save_arrays(
        folder / file, **arrays, labels=labels.numpy(), strip=strip, times=np.array([level.time for level in levels]),
        sigmas=np.array([level.noise_ratio for level in levels]),
    )  # fmt: skip
    return {"outputs": [file], "judged": "probabilities" in arrays and bool(scale)}
