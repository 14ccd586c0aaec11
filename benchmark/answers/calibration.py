"""Errors of the noise that a classifier's own density predicts on test images."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.answers.noise_errors import save_noise_errors
from benchmark.suite.protocol import Protocol
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Method


def calibrate(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the squared errors of the noise that a classifier's density predicts to ``calibration.npz``.

    Logits ``f`` define ``log p(x_t) = logsumexp_y f_y(x_t)``, whose score predicts the noise ``-sigma score``. A
    density without slope has errors of 1; those of the score model are a floor.

    Source: (d), the calibration loss.
    """
    reason = method.unsupported.get("classify") or (method.noisy_process is None and "reads clean images only")
    if reason:
        return {"outputs": [], "reason": reason}

    def predicted(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            log_density = method.classifier(x_t.requires_grad_(), t).logsumexp(1).sum()
            (score,) = torch.autograd.grad(log_density, x_t)
        _, sigma = method.noisy_process.scales(t, like=x_t)
        return -sigma * score

    process, file = method.noisy_process, folder / "calibration.npz"
    save_noise_errors(predicted, process, method.device, data, protocol, file, partial(report, "calibrate"))
    return {"outputs": ["calibration.npz"]}
