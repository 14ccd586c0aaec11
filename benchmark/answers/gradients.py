"""Gradients of a classifier against exact ones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.answers.question import some_test_images
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def gradients(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the classifier's gradients and the true ones to ``gradients.npz``, if the denoiser is exact.

    They are taken on the data's own grid of points if it has one, else on noisy test images. The file holds
    ``estimate`` and ``truth`` of ``grad log p(y | x_t)`` and the true ``score`` of ``p(x_t)``, all ``(L, N, D)`` in the
    data's own unit, at ``times (L,)`` with sigma / alpha in ``sigmas (L,)``, in that unit too.
    """
    process = method.noisy_process
    grid, unit = getattr(data, "grid", None), getattr(data, "unit", 1.0)
    if process is None or method.denoiser is None or not method.denoiser.exact:
        reason = "no exact score to compare with" if process is not None else "reads clean images only"
        return {"outputs": [], "reason": reason, "expected": grid is not None}
    if grid is None:
        u, y = some_test_images(data, protocol)
        x = data.grey.centre(u)
    else:
        x, y = grid
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    found: dict[str, list[Tensor]] = {"estimate": [], "truth": [], "score": []}
    for rows in batches(len(x), protocol.batch):
        part = slice(rows.start, rows.stop)
        eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, method.device)()
        clean, asked = x[part].to(method.device), y[part].to(method.device)
        answers: dict[str, list[Tensor]] = {name: [] for name in found}
        for t in times:
            t = t.expand(len(clean))
            x_t = clean if grid is not None else process.perturb(clean, t, eps)[0]
            for name, value in _compared(method, x_t, t, asked).items():
                answers[name].append(value.flatten(1).cpu() / unit)
        for name, values in answers.items():
            found[name].append(torch.stack(values))
        report("gradients", rows.stop, len(x))
    arrays = {name: torch.cat(parts, dim=1).numpy() for name, parts in found.items()}
    sigmas = unit * process.log_sigma(times).exp().cpu().numpy()
    save_arrays(folder / "gradients.npz", **arrays, times=times.cpu().numpy(), sigmas=sigmas)
    return {"outputs": ["gradients.npz"], "points": "noisy test images" if grid is None else "grid"}


def _compared(method: Method, x_t: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Estimated and true gradient of ``log p(y | x_t)``, and the true score, each like ``x_t``."""
    x_t = x_t.detach().requires_grad_()
    log_posterior = method.classifier(x_t, t).log_softmax(1)
    (estimate,) = torch.autograd.grad(log_posterior.gather(1, y[:, None]).sum(), x_t)
    with torch.no_grad():
        score = method.denoiser.score(x_t, t)
        return {"estimate": estimate, "truth": method.denoiser.score(x_t, t, y) - score, "score": score}
