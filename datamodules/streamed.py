"""Batches whose images are read from files as they are needed, by worker processes ahead of the training."""

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from datamodules.batches import EvaluationBatches, TrainingBatches
from datamodules.grey_levels import GreyLevels
from datamodules.image_files import Read
from datamodules.transforms import Augmentation
from methods.philox import uniform

if TYPE_CHECKING:
    from datamodules.base import ImageData


TOO_LITTLE_SHARED = (
    "shared memory (/dev/shm) is too small to read batches ahead: "
    "enlarge it (--shm-size of a container), or set data.init_args.workers=0"
)


class Files(Sequence[Path]):
    """Very many files, whose names take 40 bytes each instead of the 400 of a path.

    Args:
        below: A folder that they all lie in.
        names: Their paths below it, as bytes.
    """

    def __init__(self, below: Path, names: np.ndarray) -> None:
        self.below, self.names = below, names

    @classmethod
    def at(cls, paths: list[Path], below: Path) -> "Files":
        """The files at these paths, all of which start with that of ``below``."""
        start = len(os.fsencode(below)) + 1
        return cls(below, np.array([os.fsencode(path)[start:] for path in paths]))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Path:
        return self.below / os.fsdecode(self.names[row])

    def of(self, rows: np.ndarray) -> "Files":
        """The files in these rows."""
        return Files(self.below, self.names[rows])


class RowNumbers:
    """Takes the place of a data set in batches: these are then of row numbers, each with a seed, not of pixels.

    An image's seed, from which its augmentation and dequantisation are drawn, is a function of the key of its batch
    and its place there. So what batch ``k`` holds, and how it is shared out over devices, is decided by the same code
    as for images in memory. They are on the CPU, from where files are read.

    Args:
        data: The data set that batches are of.
        y: The task's labels of its part.
    """

    def __init__(self, data: "ImageData", y: Tensor) -> None:
        self.trainer, self.seed, self.device = data.trainer, data.seed, torch.device("cpu")
        self._images = torch.arange(len(y)), y

    def images(self, part: str) -> tuple[Tensor, Tensor]:
        """Row numbers ``(N,)`` and labels ``(N,)``."""
        return self._images

    def augmented(self, rows: Tensor, *key: int) -> Tensor:
        """Row numbers as they are; seeds come with dequantisation."""
        return rows

    def dequantised(self, rows: Tensor, *key: int) -> Tensor:
        """Row numbers and seeds ``(B, 2)``."""
        seeds = np.random.default_rng([self.seed, *key]).integers(2**63, size=len(rows))
        return torch.stack([rows, torch.from_numpy(seeds)], 1)


class Seeded(NamedTuple):
    """Grey levels of images ``(B, C, H, W)`` that are to be dequantised, and the images' seeds ``(B,)``."""

    u: Tensor
    seeds: Tensor

    def dequantised(self, grey: GreyLevels, device: torch.device) -> Tensor:
        """Images in [-1, 1], made on the device; each is a function of its seed."""
        seeds = self.seeds.to(device)
        return grey.dequantise(self.u.to(device), uniform(0, seeds, range(1), self.u.shape[1:])[0])


@dataclass(frozen=True)
class Reader(Dataset):
    """Makes a batch of images from row numbers and seeds.

    A file that cannot be used comes back as the error, which a worker process would otherwise bury in its traceback. So
    does a lack of shared memory, which would otherwise show in a thread that sends batches and drops this one for good.

    Args:
        files: The images' files.
        read: How to read one, to pixels uint8 ``(H, W, 3)``.
        augmentation: What is done to it at random.
        grey: Its grey levels.
        device: Where its batches are wanted. For the CPU they are dequantised here; elsewhere that is done there. None
            leaves them in grey levels.
    """

    files: Files
    read: Read
    augmentation: Augmentation
    grey: GreyLevels
    device: torch.device | None

    def __getitem__(self, batch: dict[str, Any]) -> dict[str, Any] | ValueError | MemoryError:
        try:
            return {name: self._filled(value) for name, value in batch.items()}
        except (ValueError, MemoryError) as error:
            return error

    def _filled(self, value: np.ndarray | tuple[np.ndarray, np.ndarray]) -> Any:
        if isinstance(value, tuple):
            return self._filled(value[0]), _sendable(torch.from_numpy(value[1]))
        images = _sendable(torch.stack([self.image(row, seed) for row, seed in value.tolist()]))
        if self.device is None or self.device.type == "cpu":
            return images
        return Seeded(images, _sendable(torch.from_numpy(value[:, 1].copy())))

    def image(self, row: int, seed: int) -> Tensor:
        """One image ``(C, H, W)``, augmented as its seed says: for the CPU dequantised too, else in grey levels."""
        rng = np.random.default_rng(seed)
        u = torch.from_numpy(self.read(self.files[row]).transpose(2, 0, 1))
        u = self.augmentation(u[None], rng)[0]
        if self.device is None or self.device.type != "cpu":
            return u
        return self.grey.dequantise(u, torch.from_numpy(rng.random(u.shape, dtype=np.float32)))

    def dequantised(self, batch: Any) -> Any:
        """The batch with its grey levels moved to the device and dequantised there, as their seeds say."""
        if isinstance(batch, Seeded):
            return batch.dequantised(self.grey, self.device)
        if isinstance(batch, dict):
            return {name: self.dequantised(value) for name, value in batch.items()}
        return [self.dequantised(value) for value in batch] if isinstance(batch, list) else batch


def _sendable(tensor: Tensor) -> Tensor:
    """A tensor that a process which reads ahead can send: in shared memory.

    Raises:
        MemoryError: If there is too little of that.
    """
    if get_worker_info() is None:
        return tensor
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        raise MemoryError(TOO_LITTLE_SHARED) from error


class StreamedBatches:
    """Batches of images from batches of row numbers, read ahead in order.

    Args:
        numbers: Batches of row numbers and seeds, of ``RowNumbers``.
        reader: What reads them.
        workers: Processes that read; 0 reads in this one.

    Raises:
        ValueError: On the way, if a file cannot be used.
        MemoryError: On the way, if shared memory is too small for what other processes read.
    """

    def __init__(self, numbers: TrainingBatches | EvaluationBatches, reader: Reader, workers: int) -> None:
        self.numbers, self.reader, self.workers = numbers, reader, workers

    def __len__(self) -> int:
        return len(self.numbers)  # raises TypeError for those of training, whose number depends on the step

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = DataLoader(self.reader, batch_size=None, sampler=_Arrays(self.numbers), num_workers=self.workers)
        try:
            batches = iter(loader)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise MemoryError(TOO_LITTLE_SHARED) from error
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield self.reader.dequantised(batch)


@dataclass(frozen=True)
class _Arrays:
    """Batches of row numbers as worker processes can take them, without shared memory."""

    numbers: TrainingBatches | EvaluationBatches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.numbers:
            yield {
                name: tuple(part.numpy() for part in value) if isinstance(value, tuple) else value.numpy()
                for name, value in batch.items()
            }
