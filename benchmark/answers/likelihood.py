"""Log-densities of test images."""

from pathlib import Path
from typing import Any

import torch

from benchmark.answers.question import DequantisedImages, asked_images
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def likelihood(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the log-densities of the test images to ``log_prob.npz``: ``bits (N,)`` per dimension and ``nfe (N,)``.

    Dequantisation and probes depend on ``(protocol.seed, image)`` alone.
    """
    reason = method.unsupported.get("log_prob")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    estimate = method.likelihood
    x = DequantisedImages(data, protocol) if estimate.dequantised else asked_images(data, protocol)[0]
    bits, nfe = [], []
    for rows in batches(len(x), protocol.batch):
        noise = KeyedNoise(protocol.seed, "likelihood", rows, data.shape, method.device)
        part = x[rows.start : rows.stop] if estimate.dequantised else data.grey.centre(x[rows.start : rows.stop])
        nats, evaluations = estimate.counted(part.to(method.device), noise)
        bits.append(data.grey.bits_per_dim(nats.cpu(), part[0].numel()))
        nfe.append(evaluations.cpu())
        report("likelihood", rows.stop, len(x))
    save_arrays(folder / "log_prob.npz", bits=torch.cat(bits).numpy(), nfe=torch.cat(nfe).numpy())
    return {
        "outputs": ["log_prob.npz"],
        "kind": estimate.kind,
        "data": "dequantised" if estimate.dequantised else "grey levels",
        "settings": estimate.settings,
    }
