"""Training batches of CIFAR's size, as trainings read them, against loaders that go item by item.

Both sides do the same work: grey levels become floats, and where a row says so they are dequantised too. No side has
worker processes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmark.speed.race import Bench, Side
from datamodules.grey_levels import GreyLevels
from datamodules.in_memory import ImagesInMemory
from datamodules.transforms import Augmentation

SIZE, PADDING, BATCH = 32, 4, 128
Item = Callable[[int], Tensor]
"""Image of a number, as a data set that goes item by item makes it."""


def pixels(images: int) -> np.ndarray:
    """Random grey levels uint8 ``(N, 3, 32, 32)``."""
    return np.random.default_rng(0).integers(0, 256, (images, 3, SIZE, SIZE), dtype=np.uint8)


class Pixels(ImagesInMemory):
    """Random images as a data set of ours."""

    name, shape, data_classes, grey = "pixels", (3, SIZE, SIZE), 2, GreyLevels(256)

    def __init__(self, images: int, crop: bool, noise: bool) -> None:
        self.count, self.noise = images, noise
        self.augmentation = Augmentation(flip=True, crop_padding=PADDING if crop else 0)
        super().__init__(batch_size=BATCH)

    def load(self, part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        return pixels(self.count), np.arange(self.count) % 2

    def dequantised(self, u: Tensor, *key: int) -> Tensor:
        return super().dequantised(u, *key) if self.noise else self.grey.centre(u)


class Items(Dataset):
    """Images one by one in [0, 1] as ToTensor scales them, or dequantised to [-1, 1], from what ``image`` gives."""

    def __init__(self, images: int, image: Item, noise: bool) -> None:
        self.count, self.image, self.noise = images, image, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        x = self.image(i)
        return (255 * x + torch.rand_like(x)) / 128 - 1 if self.noise else x, i % 2


def of_pil(images: int, crop: bool, transforms: Any) -> Item:
    """Items by torchvision's transforms of PIL images."""
    stored = pixels(images).transpose(0, 2, 3, 1).copy()
    steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    if crop:
        steps.insert(0, transforms.RandomCrop(SIZE, padding=PADDING, padding_mode="reflect"))
    transform = transforms.Compose(steps)
    return lambda i: transform(Image.fromarray(stored[i]))


def of_tensors(images: int) -> Item:
    """Items of a TensorDataset of floats, mirrored at random."""
    stored = TensorDataset(torch.from_numpy(pixels(images)).float() / 255)
    return lambda i: stored[i][0].flip(2) if torch.rand(()) < 0.5 else stored[i][0]


def ours(images: int, crop: bool, noise: bool) -> Iterator[Tensor]:
    """Images of our batches."""
    loader = Pixels(images, crop, noise).train_dataloader()
    return (loader.batch(k)["labeled"][0] for k in count())


def theirs(images: int, image: Item, noise: bool) -> Iterator[Tensor]:
    """Images of a DataLoader's batches."""
    loader = DataLoader(Items(images, image, noise), BATCH, shuffle=True, drop_last=True)
    return (x for _ in count() for x, _ in loader)


def last(batches: Iterator[Tensor], number: int) -> Tensor:
    """The last of so many batches."""
    *_, x = islice(batches, number)
    return x


def strangers(allowed: set[bytes], per_level: float, zero: float, x: Tensor) -> float:
    """Share of a batch that is no window of the images, from the step and the zero of its grey levels."""
    levels = ((x - zero) / per_level).round().clamp(0, 255).to(torch.uint8).numpy()
    if x.dtype != torch.float32 or len(x) != BATCH:
        return 1.0
    return sum(u.tobytes() not in allowed for u in levels) / BATCH


def windows(images: int, crop: bool) -> set[bytes]:
    """Every window of every image and its mirror image."""
    u = torch.from_numpy(pixels(images))
    if crop:
        u = F.pad(u.float(), (PADDING,) * 4, mode="reflect").to(torch.uint8)
    found = u.unfold(2, SIZE, 1).unfold(3, SIZE, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return {window.tobytes() for x in (found, found.flip(3)) for window in x.numpy()}


def batches(bench: Bench) -> None:
    """Batches with and without dequantisation; without it, every image must be a window of one of the data set's."""
    images, number = bench.size((10_000, 20), (2 * BATCH, 2))
    cases: list[tuple[str, str, Callable[[int], Item]]] = [("flip", "torch", of_tensors)]
    if transforms := bench.peers.package("torchvision.transforms"):
        cases.append(("flip", "torchvision", lambda images: of_pil(images, False, transforms)))
        cases.append(("flip+crop", "torchvision", lambda images: of_pil(images, True, transforms)))
    few = 2 * BATCH
    for row, peer, items in cases:
        crop = row == "flip+crop"
        allowed = windows(few, crop)
        foreign = [
            strangers(allowed, 1 / 128, 1 / 256 - 1, next(ours(few, crop, noise=False))),
            strangers(allowed, 1 / 255, 0.0, next(theirs(few, items(few), noise=False))),
        ]
        if any(foreign):
            bench.note_unequal(f"batches/{row}", f"shares {foreign} of ours and {peer}'s are no windows")
            continue
        for noise in (False, True):
            whole = f"{row}/dequantised" if noise else row
            sides = ours(images, crop, noise), theirs(images, items(images), noise)
            works = [Side(partial(last, side, number), lambda x: x.shape) for side in sides]
            bench.race("batches", {whole: works[0]}, {peer: works[1]}, images=number * BATCH)
