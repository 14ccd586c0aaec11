"""Counterfactuals: test images, noised in part and sampled on towards another class."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.question import asked_images
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import scale_tag
from benchmark.system.arrays import batches, save_arrays
from benchmark.system.images import channels_last
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Denoiser, KeyedNoise, Method

START = 0.2
"""Time up to which images are noised, as a share of all times: 20 % of the noise in (e)."""
IMAGES = 500
"""Test images that are changed, a stratified choice."""
PICTURES = 10
"""Images whose noisy ones are kept."""


def counterfactual(
    method: Method,
    data: ImageData,
    protocol: Protocol,
    folder: Path,
    report: Report,
    scale: float | None,
    reference: Method,
) -> dict[str, Any]:
    """Write test images changed towards another class to ``counterfactual@<scale>.npz``.

    Image ``i`` of class ``y`` is asked for class ``(y + 1 + i mod (K - 1)) mod K``: each other class in turn. It is
    noised to the sampler's first level at or below ``START``, or to its last one if all lie above, and sampled on
    from there, guided towards that class, and once more without a class. The file holds ``original``, ``changed`` and
    ``unguided (N, H, W, C)`` in grey levels, the first images' ``noisy`` in units of [-1, 1], ``labels`` and
    ``asked (N,)``, and the classes that the suite's reference and, if it has one, the method's own classifier see in
    the changed images, ``judged`` and ``own (N,)``.

    Source: (e) Sec. 6.4, with either guidance of the method.
    """
    reason = method.unsupported.get("sample") or (not (scale and method.conditional) and "not guided towards a class")
    if reason:
        return {"outputs": [], "reason": reason}
    fewer = min(IMAGES, protocol.test_images or IMAGES)
    u, y = asked_images(data, dataclasses.replace(protocol, test_images=fewer))
    n, guided = len(y), method.guidance()
    asked = (y + 1 + torch.arange(n) % (data.classes - 1)) % data.classes
    process, sampler = guided.process, method.sampler
    levels = process.levels(sampler.times(process))
    late = [level for level in levels if level.time <= START * process.t_max + 1e-9] or levels[-1:]
    found: dict[str, list[Tensor]] = {}
    for rows in batches(n, protocol.batch):
        part = slice(rows.start, rows.stop)
        x = data.grey.centre(u[part]).to(method.device)

        def sampled(denoiser: Denoiser, to: Tensor | None, x: Tensor = x, rows: range = rows) -> tuple[Tensor, Tensor]:
            noise = KeyedNoise(protocol.seed, "counterfactual", rows, data.shape, method.device)
            with torch.no_grad():
                x_t, _ = process.perturb(x, late[0].times(x), noise())
                reached = sampler.solve(denoiser, x_t, late, to, noise)
                return x_t.cpu(), data.grey.quantise(sampler.final(denoiser, reached, late[-1], to, noise).cpu())

        x_t, changed = sampled(guided, asked[part].to(method.device))
        answers = {"changed": changed, "unguided": sampled(method.denoiser, None)[1]}
        answers["judged"] = _classes(reference, data, changed)
        if "classify" not in method.unsupported:
            with torch.no_grad():
                answers["own"] = method.classify(data.grey.centre(changed).to(method.device)).argmax(1).cpu()
        if rows.start == 0:
            answers["noisy"] = x_t[:PICTURES]
        for name, values in answers.items():
            found.setdefault(name, []).append(values)
        report(f"counterfactual{scale_tag(scale)}", rows.stop, n)
    whole = {name: torch.cat(parts) for name, parts in found.items()} | {"original": u, "labels": y, "asked": asked}
    arrays = {name: channels_last(v) if v.ndim == 4 else v.numpy() for name, v in whole.items()}
    file = f"counterfactual{scale_tag(scale)}.npz"
    save_arrays(folder / file, **arrays)
    return {
        "outputs": [file], "grey_levels": data.grey.count, "sigma": late[0].noise_ratio, "steps": len(late),
        "class_names": data.task_class_names,
    }  # fmt: skip


def _classes(reference: Method, data: ImageData, u: Tensor) -> Tensor:
    """The task's class that the reference sees in images, ``(B,)``; its own classes are those of the data set."""
    with torch.no_grad():
        probabilities = reference.classify(data.grey.centre(u).to(reference.device)).float().softmax(1).cpu().numpy()
    summed = np.zeros((len(u), data.classes))
    np.add.at(summed.T, data.task_classes, probabilities.T)
    return torch.from_numpy(summed.argmax(1))
