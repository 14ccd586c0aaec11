"""Errors of a denoiser's noise on test images."""

from functools import partial
from pathlib import Path
from typing import Any

from benchmark.answers.noise_errors import save_noise_errors
from benchmark.suite.protocol import Protocol
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Method


def denoise(method: Method, data: ImageData, protocol: Protocol, folder: Path, report: Report) -> dict[str, Any]:
    """Write the squared errors of the noise that a method's denoiser predicts to ``denoise.npz``."""
    reason = method.unsupported.get("denoise")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    process = method.denoiser.process
    file = folder / "denoise.npz"
    save_noise_errors(method.denoiser.eps, process, method.device, data, protocol, file, partial(report, "denoise"))
    return {"outputs": ["denoise.npz"]}
