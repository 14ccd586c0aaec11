"""What a method answered: logits, log-densities and samples, each computed once, seeded by image and kept in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.array_files import Report, batches, save_arrays, some_test_images
from benchmark.protocol import Protocol
from datamodules.base import ImageData
from methods.base import KeyedNoise, Method


def classify(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Logits on the test images: clean, at random noise levels, and at each level of the curve.

    Noise levels and noise depend on ``(protocol.seed, image, draw)`` alone: classifiers of one process read the same
    noisy images. Files: ``logits.npz`` with ``y (N,)``, ``clean (N, K)`` and, for a classifier of noisy images,
    ``noisy (draws, N, K)``, ``levels (L, N, K)``, ``level_times (L,)``, ``level_sigmas (L,)``; for one of two inputs
    ``masked_x (N, K)`` and ``masked_denoised (N, K)`` too, on the noisy images of the first draw.
    """
    reason = method.unsupported.get("classify")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    u, y = some_test_images(data, protocol)
    process, device = method.noisy_process, method.device
    draws, levels = (protocol.noisy_draws, protocol.levels) if process is not None else (0, 0)
    rng = np.random.default_rng([protocol.seed, 1])
    quantiles = torch.from_numpy(rng.random((draws, len(y)), dtype=np.float32))
    curve = (torch.arange(levels, dtype=torch.float32, device=device) + 0.5) / levels if levels else None
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for rows in batches(len(y), protocol.batch):
            part = slice(rows.start, rows.stop)
            x = data.grey.centre(u[part]).to(device)
            answers = {"clean": method.classify(x)}
            if process is not None:
                noise = KeyedNoise(protocol.seed, "noisy", rows, data.shape, device)
                answers |= _noisy(method, x, quantiles[:, part].to(device), process.times_at(curve), noise)
            for name, logits in answers.items():
                found.setdefault(name, []).append(logits.float().cpu())
            report("classify", rows.stop, len(y))
    arrays = {"y": y.numpy()} | {name: torch.cat(parts, dim=-2).numpy() for name, parts in found.items()}
    if process is not None:
        times = process.times_at(curve)
        arrays |= {"level_times": times.cpu().numpy(), "level_sigmas": process.log_sigma(times).exp().cpu().numpy()}
    save_arrays(folder / "logits.npz", **arrays)
    return {"outputs": ["logits.npz"]}


def _noisy(method: Method, x: Tensor, quantiles: Tensor, curve: Tensor, noise: KeyedNoise) -> dict[str, Tensor]:
    """Logits at random times ``(draws, B, K)``, at those of the curve ``(L, B, K)``, with inputs masked ``(B, K)``."""
    process = method.noisy_process
    noisy, masked = [], {}
    for draw, quantile in enumerate(quantiles):
        t = process.times_at(quantile)
        x_t, _ = process.perturb(x, t, noise())
        noisy.append(method.classify(x_t, t))
        if draw == 0 and hasattr(method.classifier, "masked"):
            masked = {f"masked_{name}": logits for name, logits in method.classifier.masked(x_t, t).items()}
    eps, levels = noise(), []
    for t in curve:
        t = t.expand(len(x))
        levels.append(method.classify(process.perturb(x, t, eps)[0], t))
    return {"noisy": torch.stack(noisy), "levels": torch.stack(levels), **masked}


def likelihood(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Log-densities of the test images, ``log_prob.npz`` with ``bits (N,)`` per dimension and ``nfe (N,)``.

    Dequantisation and probes depend on ``(protocol.seed, image)`` alone.
    """
    reason = method.unsupported.get("log_prob")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    estimate = method.likelihood
    dequantised = estimate.dequantised
    x = _dequantised_test(data, protocol) if dequantised else data.grey.centre(some_test_images(data, protocol)[0])
    bits, nfe = [], []
    for rows in batches(len(x), protocol.batch):
        noise = KeyedNoise(protocol.seed, "likelihood", rows, data.shape, method.device)
        nats, evaluations = estimate.counted(x[rows.start : rows.stop].to(method.device), noise)
        bits.append(data.grey.bits_per_dim(nats.cpu(), x[0].numel()))
        nfe.append(evaluations.cpu())
        report("likelihood", rows.stop, len(x))
    save_arrays(folder / "log_prob.npz", bits=torch.cat(bits).numpy(), nfe=torch.cat(nfe).numpy())
    return {
        "outputs": ["log_prob.npz"],
        "kind": estimate.kind,
        "data": "dequantised" if estimate.dequantised else "grey levels",
        "settings": estimate.settings,
    }


def denoise(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Squared error of the predicted noise on dequantised test images, ``denoise.npz``.

    ``errors (L, N)`` is the mean over pixels at ``times (L,)``; ``sigmas (L,)`` are sigma / alpha there. The noise
    depends on ``(protocol.seed, image)`` alone.
    """
    if method.no_denoising_error is not None:
        return {"outputs": [], "reason": method.no_denoising_error}
    x = _dequantised_test(data, protocol)
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


def diagnose(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """A method's checks beside its likelihood, ``diagnostics.npz``, a row for each dequantised test image.

    ``confusion (G, G)`` alone is a mean over images. ``times (L,)`` and ``sigmas (L,)``, sigma / alpha there, are those
    of ``noisy_bits (N, L)``. ``lattice_bits (N,)`` score the grey levels without dequantisation, as the code of (c).
    """
    if type(method).diagnostics is Method.diagnostics:
        return {"outputs": [], "reason": "no classifier of noise levels"}
    grey, (u, _), x = data.grey, some_test_images(data, protocol), _dequantised_test(data, protocol)
    process = method.denoiser.process
    times = process.times_at(torch.tensor(protocol.denoise_times, device=method.device))
    found: dict[str, list[np.ndarray]] = {}
    for rows in batches(len(x), protocol.batch):
        here = slice(rows.start, rows.stop)
        noise = KeyedNoise(protocol.seed, "diagnose", rows, data.shape, method.device)
        part = method.diagnostics(x[here].to(method.device), noise, times)
        nats = method.log_prob(grey.lattice(u[here]).to(method.device)).cpu()
        part["lattice_bits"] = grey.lattice_bits_per_dim(nats, x[0].numel())
        for name, values in part.items():
            found.setdefault(name, []).append(values.detach().cpu().numpy())
        report("diagnose", rows.stop, len(x))
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    arrays["confusion"] = arrays["confusion"].mean(0, dtype=np.float64)
    sigmas = process.log_sigma(times).exp()
    save_arrays(folder / "diagnostics.npz", **arrays, times=times.cpu().numpy(), sigmas=sigmas.cpu().numpy())
    return {"outputs": ["diagnostics.npz"], "process": process.extra_repr()}


def gradients(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """The classifier's gradient against the true one, where the denoiser is exact.

    On the data's own grid of places if it has one, else on noisy test images. ``gradients.npz``: ``estimate`` and
    ``truth`` of ``grad log p(y | x_t)`` and the true ``score`` of ``p(x_t)``, all ``(L, N, D)`` in the data's own unit,
    at ``times (L,)`` with sigma / alpha in ``sigmas (L,)``, in that unit too.
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


def _dequantised_test(data: ImageData, protocol: Protocol) -> Tensor:
    u, _ = some_test_images(data, protocol)
    v = np.random.default_rng([protocol.seed, 2]).random(u.shape, dtype=np.float32)
    return data.grey.dequantise(u, torch.from_numpy(v))
