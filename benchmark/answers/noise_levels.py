"""Answers of a classifier of noise levels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.answers.question import DequantisedImages, asked_images
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def diagnose(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write a method's diagnostics to ``diagnostics.npz``, a row for each dequantised test image.

    Only ``confusion (G, G)`` is a mean over images. ``times (L,)`` and ``sigmas (L,)``, sigma / alpha there, are those
    of ``noisy_bits (N, L)``. ``ode_bits (N,)`` are those of the denoiser's ODE. ``lattice_bits (N,)`` score the grey
    levels without dequantisation, as the code of paper (c) does.
    """
    reason = method.unsupported.get("diagnostics")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    grey, (u, _), x = data.grey, asked_images(data, protocol), DequantisedImages(data, protocol)
    process = method.denoiser.process
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    found: dict[str, list[np.ndarray]] = {}
    dims = u[0].numel()
    for rows in batches(len(x), protocol.batch):
        here = slice(rows.start, rows.stop)
        noise = KeyedNoise(protocol.seed, "diagnose", rows, data.shape, method.device)
        part = method.likelihood.diagnostics(x[here].to(method.device), noise, times)
        nats = method.log_prob(grey.lattice(u[here]).to(method.device)).cpu()
        part["ode_bits"] = grey.bits_per_dim(part.pop("ode_log_prob").cpu(), dims)
        part["lattice_bits"] = grey.lattice_bits_per_dim(nats, dims)
        for name, values in part.items():
            found.setdefault(name, []).append(values.detach().cpu().numpy())
        report("diagnose", rows.stop, len(x))
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    arrays["confusion"] = arrays["confusion"].mean(0, dtype=np.float64)
    sigmas = process.log_sigma(times).exp()
    save_arrays(folder / "diagnostics.npz", **arrays, times=times.cpu().numpy(), sigmas=sigmas.cpu().numpy())
    return {"outputs": ["diagnostics.npz"], "process": process.extra_repr()}
