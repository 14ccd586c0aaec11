"""Cost of the answers and samples of a cell, counted on tensors without data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.cost.meter import META, Call, measured
from benchmark.cost.times import Work
from benchmark.suite.suite import Suite
from datamodules.base import ImageData, Part
from methods.base import Method


@dataclass(frozen=True)
class Reference:
    """Networks that evaluate samples: their cost and the size of their outputs.

    Attributes:
        call: Cost of all networks for ``batch`` images.
        batch: Images at once.
        row: Bytes of all outputs for an image.
        data: Number of images of the training and test parts.
        seen: Images that all networks see before those of any cell; the reference's centre and scale come first.
    """

    call: Call
    batch: int
    row: int
    data: dict[str, int]
    seen: int

    def work(self, images: int) -> Work:
        """Work of ``images`` images."""
        return repeated(self.call, images, self.batch)


def repeated(call: Call, images: int, batch: int, times: float = 1) -> Work:
    """Work of a batch's call for ``images`` images, ``times`` times each, in single precision."""
    return Work(call.flops * images / batch * times, call.operators * math.ceil(images / batch) * times)


def number_asked(data: ImageData, part: Part, count: int | None) -> int:
    """Number of images of a part, at most ``count``."""
    n = len(data.images(part)[1])
    return n if count is None else min(n, count)


def images_of(data: ImageData, n: int) -> Tensor:
    """Images ``(n, C, H, W)`` without data."""
    return torch.zeros(n, *data.shape, device=META)


def labels_of(n: int) -> Tensor:
    """Labels ``(n,)`` without data."""
    return torch.zeros(n, dtype=torch.long, device=META)


class Evaluation:
    """Cost of a cell's evaluation, summed over its stages.

    Attributes:
        work: Calls of the method and of the reference.
        disk: Bytes of all kept files.
        memory: Peak bytes of a batch of the protocol.
    """

    def __init__(self, method: Method, data: ImageData, suite: Suite, reference: Reference | None) -> None:
        self.method, self.data, self.protocol = method.eval().requires_grad_(False), data, suite.protocol
        self.reference = reference
        self.test = number_asked(data, suite.protocol.part, suite.protocol.test_images)
        self._guided: dict[float, Call] = {}
        self.work: list[Work] = []
        self.disk = self.memory = 0.0

    def add(self, images: int, times: float, call: Callable[[Tensor, Tensor], Any]) -> None:
        """Add ``call(x, t)`` for ``images`` images, ``times`` times each."""
        self._add(images, times, self._measured(images, call))

    def _measured(self, images: int, call: Callable[[Tensor, Tensor], Any]) -> Call:
        batch = min(self.protocol.batch, images)
        x, t = images_of(self.data, batch), torch.full((batch,), 0.5, device=META)
        with torch.no_grad():
            return measured(lambda: call(x, t))

    def _add(self, images: int, times: float, found: Call) -> None:
        self.work.append(repeated(found, images, min(self.protocol.batch, images), times))
        self.memory = max(self.memory, found.resident + found.peak)

    def answer(self) -> None:
        """Add logits, log-densities, denoising errors and diagnostics of the test images."""
        method, protocol, n = self.method, self.protocol, self.test
        if "classify" not in method.unsupported:
            noisy = protocol.noisy_draws + protocol.levels if method.noisy_process is not None else 0
            self.add(n, 1 + noisy, lambda x, t: method.classify(x, t if noisy else None))
            self.disk += 4 * n * (1 + noisy) * self.data.classes
            if "masked" not in method.unsupported:
                self.add(n, 1, method.classifier.masked)
                self.disk += 4 * n * 2 * self.data.classes
        if "log_prob" not in method.unsupported:
            self._likelihood()
        if "denoise" not in method.unsupported:
            self.add(n, len(protocol.denoise_times), method.denoiser.eps)
            self.disk += 4 * n * len(protocol.denoise_times)

    def _likelihood(self) -> None:
        method, protocol, likelihood, n = self.method, self.protocol, self.method.likelihood, self.test
        self.disk += 4 * n * 2  # and how many evaluations it took
        if likelihood.nfe <= 1:
            self.add(n, 1, lambda x, t: method.log_prob(x))
        else:
            pulled = likelihood.kind == "estimate"  # of a divergence, by a gradient with regard to the images
            self.add(n, likelihood.nfe, self._pulled if pulled else method.denoiser.eps)
        if "diagnostics" not in method.unsupported:  # look at every level of noise
            levels, times = method.denoiser.process.last + 1, len(protocol.denoise_times)
            self.add(n, levels + 1, lambda x, t: method.log_prob(x))  # and the lattice of grey levels
            self.add(n, 1, method.denoiser.eps)
            self.add(n, likelihood.ode.nfe, self._pulled)
            self.disk += 4 * n * (levels + times + 3)

    def _pulled(self, x: Tensor, t: Tensor) -> None:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.grad(self.method.denoiser.eps(x, t).sum(), x)

    def sample(self, scale: float | None) -> None:
        """Add samples at a guidance scale and their features."""
        method, n = self.method, self.protocol.samples
        if "sample" in method.unsupported:
            return
        kind = (scale or 0.0) if scale in (None, 0, 1) else 2.0  # all scales but 0 and 1 cost the same
        if kind not in self._guided:
            if scale is not None:
                method.guidance_scale = scale
            denoiser = method.guidance() if scale else method.denoiser
            self._guided[kind] = self._measured(n, lambda x, t: denoiser(x, t, labels_of(len(x)) if scale else None))
        self._add(n, method.sampler.nfe, self._guided[kind])
        self.disk += n * (2 * math.prod(self.data.shape) + 8)  # the shards, and the file that they are joined into
        if self.reference is not None:
            self.work.append(self.reference.work(n))
            self.disk += n * self.reference.row
