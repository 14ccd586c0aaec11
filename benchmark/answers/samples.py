"""Samples, drawn in shards; a restart keeps finished shards, and processes share them out."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.question import asked_images
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage, scale_tag
from benchmark.system.arrays import batches, load_arrays, save_arrays, save_rows
from benchmark.system.files import replacing
from benchmark.system.images import SHARD, Drawn, channels_last, draw_images
from benchmark.system.memory import peak_memory
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Method

Draw = Callable[[list[range], Drawn], None]
"""Draws the shards of these samples."""


@dataclass(frozen=True)
class Shards:
    """The samples of a cell at one guidance scale, in shards that are drawn and kept one by one.

    A shard is cut into batches of ``protocol.batch`` from its own beginning, so its bytes do not depend on the process
    that draws it or on restarts; another ``protocol.batch`` can move single pixels to the next grey level. Each shard
    is a stage in ``samples@<scale>.parts``: a cut or changed one, or one of another key, does not count as finished.

    Attributes:
        protocol: Gives samples, seed and batch.
        scale: Guidance scale; None for unconditional samples.
        folder: Folder of the cell's seed.
        key: Key of the stage of the samples.
    """

    protocol: Protocol
    scale: float | None
    folder: Path
    key: str

    @property
    def parts(self) -> Path:
        """Folder of the shards."""
        return _parts(self.folder, self.scale)

    @property
    def ranges(self) -> list[range]:
        """The samples of each shard."""
        return list(batches(self.protocol.samples, SHARD))

    def missing(self) -> list[range]:
        """Shards that are not finished. If none is finished, their folder is removed: its files are of another key."""
        missing = [rows for rows in self.ranges if self._stage(rows).completed(self.parts) is None]
        if missing == self.ranges:
            shutil.rmtree(self.parts, ignore_errors=True)
        return missing

    def draw(self, method: Method, data: ImageData, shards: Iterable[range], drawn: Drawn) -> None:
        """Draw shards and keep each one that is whole.

        Raises:
            FloatingPointError: If a sample is not finite.
        """
        if self.scale is not None:
            method.guidance_scale = self.scale
        for rows in shards:
            self._stage(rows).complete(self.parts, partial(self._draw, method, data, rows, drawn))

    def _draw(self, method: Method, data: ImageData, rows: range, drawn: Drawn) -> dict[str, Any]:
        labels = self.labels(data) if self.scale else None
        images = draw_images(method, data, rows, labels, self.protocol.seed, self.protocol.batch, drawn)
        file = _file(rows)
        with replacing(self.parts / file) as temporary, open(temporary, "wb") as opened:
            np.savez(opened, images=images)  # not compressed: it does not stay
        return {"outputs": [file], "peak_memory_bytes": peak_memory()}

    def labels(self, data: ImageData) -> Tensor:
        """Classes to draw, ``(N,)``: in turn with a scale above 0, else -1."""
        n = self.protocol.samples
        return torch.arange(n) % data.classes if self.scale else torch.full((n,), -1)

    def join(self, labels: Tensor) -> dict[str, Any]:
        """Write all samples to ``samples@<scale>.npz``; returns that file and the cost of drawing.

        ``seconds`` and ``cpu_seconds`` are sums over the shards, each drawn on one device: rates from them are those of
        one device. The shards stay, since the stage is not recorded yet.

        Raises:
            RuntimeError: If a shard is missing or was changed.
        """
        records = []
        for rows in self.ranges:
            record = self._stage(rows).completed(self.parts)
            if record is None:
                raise RuntimeError(f"{self.parts / _file(rows)} is missing or was changed since it was drawn")
            records.append(record)
        file = f"samples{scale_tag(self.scale)}.npz"
        shards = (load_arrays(self.parts / _file(rows))["images"] for rows in self.ranges)
        save_rows(self.folder / file, "images", self.protocol.samples, shards, labels=labels.numpy())
        peaks = [peak_memory(), *(record["peak_memory_bytes"] for record in records)]
        return {
            "outputs": [file],
            "seconds": sum(record["seconds"] for record in records),
            "cpu_seconds": sum(record["cpu_seconds"] for record in records),
            "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
        }

    def _stage(self, rows: range) -> Stage:
        return Stage(Path(_file(rows)).stem, self.key)


def sample(method: Method, data: ImageData, shards: Shards, report: Report, draw: Draw | None = None) -> dict[str, Any]:
    """Write generated images to ``samples@<scale>.npz``: grey levels ``images (N, H, W, C)`` and ``labels (N,)``.

    Image ``i`` depends on ``(protocol.seed, i)`` alone. Shards that an earlier attempt finished are not drawn again.

    Args:
        method: The method; if it cannot sample, the result has a ``reason``.
        data: Gives image shape, grey levels and classes.
        shards: The samples.
        report: Receives the number of all images, those of earlier attempts included.
        draw: Draws missing shards; by default this process does.

    Raises:
        FloatingPointError: If a sample is not finite.
    """
    reason = method.unsupported.get("sample")
    if reason is not None:
        return {"outputs": [], "reason": reason}
    missing, total = shards.missing(), shards.protocol.samples
    done = total - sum(map(len, missing))

    def drawn(images: int) -> None:
        nonlocal done
        done += images
        report(f"sample{scale_tag(shards.scale)}", done, total)

    drawn(0)
    (draw or partial(shards.draw, method, data))(missing, drawn)
    return {
        **shards.join(shards.labels(data)),
        "samples": total,
        "task_classes": data.task_classes.tolist(),
        "class_names": data.task_class_names,
        "sampler": type(method.sampler).__name__,
        "steps": method.sampler.steps,
        "nfe": method.sampler.nfe,
    }


def image_samples(part: Literal["train", "test"], data: ImageData, protocol: Protocol, folder: Path) -> dict[str, Any]:
    """Write real images in place of samples: those that the protocol asks about, or training images."""
    if part == "test":
        u, y = asked_images(data, protocol)
    else:
        u, y = data.images(part)
        rows = np.random.default_rng([protocol.seed, 3]).permutation(len(u))[: protocol.samples]
        u, y = u[rows], y[rows]
    save_arrays(folder / "samples.npz", images=channels_last(u), labels=y.numpy())
    return {"outputs": ["samples.npz"], "class_names": data.task_class_names}


def remove_parts(folder: Path, stage: Stage) -> None:
    """Remove the shards of a recorded stage of samples, which needs them no more."""
    if stage.kind == "sample":
        shutil.rmtree(_parts(folder, stage.scale), ignore_errors=True)


def _parts(folder: Path, scale: float | None) -> Path:
    return folder / f"samples{scale_tag(scale)}.parts"


def _file(rows: range) -> str:
    return f"{rows.start}-{rows.stop - 1}.npz"
