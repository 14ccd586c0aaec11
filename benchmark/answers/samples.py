"""Samples, drawn in shards: the unit that a restart keeps and that several processes share."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmark.answers.question import some_test_images
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage, scale_tag
from benchmark.system.arrays import batches, load_arrays, save_arrays
from benchmark.system.files import replacing
from benchmark.system.images import SHARD, Drawn, channels_last, draw_images
from benchmark.system.memory import peak_memory
from benchmark.system.report import Report
from datamodules.base import ImageData
from methods.base import Method

Draw = Callable[[list[range], Drawn], None]
"""Draws the shards of these samples, wherever."""


@dataclass(frozen=True)
class Shards:
    """The samples of a cell at one guidance scale, in shards that are drawn and kept each by itself.

    A shard is cut into batches of ``protocol.batch`` from its own beginning, so its bytes are the same whichever
    process draws it, after whatever restart; another ``protocol.batch`` moves a pixel now and then to the next grey
    level. It is a stage of its own in ``samples@<scale>.parts``: cut, changed or under another key, it does not count
    as finished.

    Attributes:
        protocol: For samples, seed and batch.
        scale: Guidance scale; None for unconditional samples.
        folder: Of the cell's seed.
        key: Of the stage that the samples are.
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
        """Shards that are not finished. What lies there is removed if none is: it is of another key, or spoiled."""
        missing = [rows for rows in self.ranges if self._stage(rows).completed(self.parts) is None]
        if missing == self.ranges:
            shutil.rmtree(self.parts, ignore_errors=True)
        return missing

    def draw(self, method: Method, data: ImageData, shards: Iterable[range], drawn: Drawn) -> None:
        """Draw shards, and keep each once it is whole.

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
        """Classes asked for, ``(N,)``: with a scale above 0 they go round, else none is, and they are -1."""
        n = self.protocol.samples
        return torch.arange(n) % data.classes if self.scale else torch.full((n,), -1)

    def join(self, labels: Tensor) -> dict[str, Any]:
        """Write all samples to ``samples@<scale>.npz``; that file, and what drawing them took.

        ``seconds`` and ``cpu_seconds`` are sums over the shards, each drawn on one device in whatever attempt: a rate
        made of them is that of one device. The shards stay, for the stage is not recorded yet.

        Raises:
            RuntimeError: If a shard is missing or was changed.
        """
        images, records = None, []
        for rows in self.ranges:
            record = self._stage(rows).completed(self.parts)
            if record is None:
                raise RuntimeError(f"{self.parts / _file(rows)} is missing or was changed since it was drawn")
            shard = load_arrays(self.parts / _file(rows))["images"]
            if images is None:
                images = np.empty((self.protocol.samples, *shard.shape[1:]), shard.dtype)
            images[rows.start : rows.stop] = shard
            records.append(record)
        file = f"samples{scale_tag(self.scale)}.npz"
        save_arrays(self.folder / file, images=images, labels=labels.numpy())
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
    """Generated images as grey levels, ``samples@<scale>.npz`` with ``images (N, H, W, C)`` and ``labels (N,)``.

    Image ``i`` depends on ``(protocol.seed, i)`` alone. Shards that an earlier attempt finished are not drawn again.

    Args:
        method: The method; what it cannot do is the result's ``reason``.
        data: For image shape, grey levels and classes.
        shards: The samples.
        report: Told of all images that are there, of which the first may be an earlier attempt's.
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
    """Real images in the place of samples: the test images asked about, or copies of training images."""
    if part == "test":
        u, y = some_test_images(data, protocol)
    else:
        u, y = data.images(part)
        rows = np.random.default_rng([protocol.seed, 3]).permutation(len(u))[: protocol.samples]
        u, y = u[rows], y[rows]
    save_arrays(folder / "samples.npz", images=channels_last(u), labels=y.numpy())
    return {"outputs": ["samples.npz"], "class_names": data.task_class_names}


def remove_parts(folder: Path, stage: Stage) -> None:
    """Remove the shards of a stage that is recorded, if it is one of samples: it has no more use for them."""
    if stage.kind == "sample":
        shutil.rmtree(_parts(folder, stage.scale), ignore_errors=True)


def _parts(folder: Path, scale: float | None) -> Path:
    return folder / f"samples{scale_tag(scale)}.parts"


def _file(rows: range) -> str:
    return f"{rows.start}-{rows.stop - 1}.npz"
