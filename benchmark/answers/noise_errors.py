"""Errors of predicted noise on test images, for the questions that predict noise."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmark.answers.question import DequantisedImages
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from datamodules.base import ImageData
from methods.base import KeyedNoise, NoiseProcess


def save_noise_errors(
    predicted: Callable[[Tensor, Tensor], Tensor],
    process: NoiseProcess,
    device: torch.device,
    data: ImageData,
    protocol: Protocol,
    file: Path,
    report: Callable[[int, int], None],
) -> None:
    """Write the squared errors of predicted noise on dequantised test images.

    The file holds ``errors (L, N)``, the mean over pixels at ``times (L,)``, and ``sigmas (L,)``, sigma / alpha there.
    The noise depends on ``(protocol.seed, image)`` alone.

    Args:
        predicted: ``(x_t, t) -> eps``.
        process: Noise process of ``x_t``.
        device: Where the method is.
        data: Its data.
        protocol: The suite's protocol.
        file: File to write.
        report: Receives the number of images done and of all.
    """
    x = DequantisedImages(data, protocol)
    times = process.times_at(torch.tensor(protocol.denoise_times, device=device))
    errors = torch.zeros(len(times), len(x))
    for rows in batches(len(x), protocol.batch):
        part = slice(rows.start, rows.stop)
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, device)()
        clean = x[part].to(device)
        for level, t in enumerate(times):
            t = t.expand(len(clean))
            x_t, _ = process.perturb(clean, t, eps)
            errors[level, part] = (predicted(x_t, t) - eps).detach().square().flatten(1).mean(1).cpu()
        report(rows.stop, len(x))
    sigmas = process.log_sigma(times).exp()
    save_arrays(file, errors=errors.numpy(), times=times.cpu().numpy(), sigmas=sigmas.cpu().numpy())
