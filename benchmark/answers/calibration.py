"""Errors of the noise that a classifier's own density predicts on test images."""

from pathlib import Path
from typing import Any

import torch

from benchmark.answers.question import dequantised_test
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def calibrate(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the squared errors of the noise that a classifier's density predicts to ``calibration.npz``.

    Logits ``f`` define ``log p(x_t) = logsumexp_y f_y(x_t)``, whose score predicts the noise ``-sigma score``. ``errors
    (L, N)`` is the mean over pixels at ``times (L,)``, on the noisy images of ``denoise``; ``sigmas (L,)`` are sigma /
    alpha there. A density without slope has 1, the score model's errors are a floor.

    Source: (d), the calibration loss.
    """
    reason = method.unsupported.get("classify") or (method.noisy_process is None and "reads clean images only")
    if reason:
        return {"outputs": [], "reason": reason}
    x, process = dequantised_test(data, protocol), method.noisy_process
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    errors = torch.zeros(len(times), len(x))
    for rows in batches(len(x), protocol.batch):
        part = slice(rows.start, rows.stop)
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, method.device)()
        clean = x[part].to(method.device)
        for level, t in enumerate(times):
            t = t.expand(len(clean))
            x_t, _ = process.perturb(clean, t, eps)
            with torch.enable_grad():
                log_density = method.classifier(x_t.requires_grad_(), t).logsumexp(1).sum()
                (score,) = torch.autograd.grad(log_density, x_t)
            _, sigma = process.scales(t, like=x_t)
            errors[level, part] = (sigma * score + eps).detach().square().flatten(1).mean(1).cpu()
        report("calibrate", rows.stop, len(x))
    sigmas = process.log_sigma(times).exp()
    save_arrays(
        folder / "calibration.npz", errors=errors.numpy(), times=times.cpu().numpy(), sigmas=sigmas.cpu().numpy()
    )
    return {"outputs": ["calibration.npz"]}
