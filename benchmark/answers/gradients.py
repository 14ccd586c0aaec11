"""Gradients of a classifier against exact ones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.answers.question import asked_images
from benchmark.suite.protocol import Protocol
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def gradients(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the classifier's gradients and the true ones to ``gradients.npz``, if the denoiser is exact.

    They are taken on noisy test images and, where the data has one, on its own grid of points. For each of these
    ``points`` the file holds ``<points>_estimate`` and ``<points>_truth`` of ``grad log p(y | x_t)`` and the true
    ``<points>_score`` of ``p(x_t)``, all ``(L, N, D)`` in the data's own unit, at ``times (L,)`` with sigma / alpha in
    ``sigmas (L,)``, in that unit too; of the grid, also its ``grid_places (N, D)`` and the class asked for at each,
    ``grid_classes (N,)``.
    """
    process = method.noisy_process
    grid, unit = getattr(data, "grid", None), getattr(data, "unit", 1.0)
    if process is None or method.denoiser is None or not method.denoiser.exact:
        reason = "no exact score to compare with" if process is not None else "reads clean images only"
        return {"outputs": [], "reason": reason, "expected": grid is not None}
    u, y = asked_images(data, protocol)
    places = {"test": (data.grey.centre(u), y)} | ({} if grid is None else {"grid": grid})
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    arrays = {"times": times.cpu().numpy(), "sigmas": unit * process.log_sigma(times).exp().cpu().numpy()}
    if grid is not None:
        arrays |= {"grid_places": unit * grid[0].flatten(1).numpy(), "grid_classes": grid[1].numpy()}
    done = 0
    for points, (x, asked) in places.items():
        found: dict[str, list[Tensor]] = {}
        for rows in batches(len(x), protocol.batch):
            part = slice(rows.start, rows.stop)
            clean, of = x[part].to(method.device), asked[part].to(method.device)
            eps = KeyedNoise(protocol.seed, "denoise", rows, data.shape, method.device)()
            levels: dict[str, list[Tensor]] = {}
            for t in times:
                t = t.expand(len(clean))
                x_t = process.perturb(clean, t, eps)[0] if points == "test" else clean
                for name, value in _compared(method, x_t, t, of).items():
                    levels.setdefault(name, []).append(value.flatten(1).cpu() / unit)
            for name, values in levels.items():
                found.setdefault(f"{points}_{name}", []).append(torch.stack(values))
            report("gradients", done + rows.stop, sum(len(x) for x, _ in places.values()))
        done += len(x)
        arrays |= {name: torch.cat(parts, dim=1).numpy() for name, parts in found.items()}
    save_arrays(folder / "gradients.npz", **arrays)
    return {"outputs": ["gradients.npz"], "points": [*places]}


def _compared(method: Method, x_t: Tensor, t: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Estimated and true gradient of ``log p(y | x_t)``, and the true score, each like ``x_t``."""
    x_t = x_t.detach().requires_grad_()
    log_posterior = method.classifier(x_t, t).log_softmax(1)
    (estimate,) = torch.autograd.grad(log_posterior.gather(1, y[:, None]).sum(), x_t)
    with torch.no_grad():
        score = method.denoiser.score(x_t, t)
        return {"estimate": estimate, "truth": method.denoiser.score(x_t, t, y) - score, "score": score}
