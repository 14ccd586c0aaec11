"""Errors of predicted noise on test images."""

from pathlib import Path
from typing import Any

import torch

from benchmark.answers.question import dequantised_test
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def denoise(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the squared errors of the predicted noise on dequantised test images to ``denoise.npz``.

    ``errors (L, N)`` is the mean over pixels at ``times (L,)``; ``sigmas (L,)`` are sigma / alpha there. The noise
    depends on ``(protocol.seed, image)`` alone.
    """
    reason = method.unsupported.get("denoise")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    x = dequantised_test(data, protocol)
    process = method.denoiser.process
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    errors = torch.zeros(len(times), len(x))
    for rows in batches(len(x), protocol.batch):
        part = slice(rows.start, rows.stop)
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, method.device)()
        clean = x[part].to(method.device)
        for level, t in enumerate(times):
            t = t.expand(len(clean))
            x_t, _ = process.perturb(clean, t, eps)
            errors[level, part] = (method.denoiser.eps(x_t, t) - eps).detach().square().flatten(1).mean(1).cpu()
        report("denoise", rows.stop, len(x))
    sigmas = process.log_sigma(times).exp()
    save_arrays(folder / "denoise.npz", errors=errors.numpy(), times=times.cpu().numpy(), sigmas=sigmas.cpu().numpy())
    return {"outputs": ["denoise.npz"]}
