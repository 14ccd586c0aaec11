"""Our training batches of CIFAR's size against loaders that go item by item: CPU time in one process, interleaved.

Peers are a DataLoader with torchvision's transforms of PIL images, and one of a TensorDataset whose images are mirrored
one by one. Both sides do the same work: grey levels become floats, and where a row says so they are dequantised too. No
side has worker processes. One JSON row per target and peer; ratios above 1 favour us.
"""

import argparse
import sys
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

from benchmark.speed.peers import peer, race
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
    loader = Pixels(images, crop, noise).train_dataloader()
    return (loader.batch(k)["labeled"][0] for k in count())


def theirs(images: int, image: Item, noise: bool) -> Iterator[Tensor]:
    loader = DataLoader(Items(images, image, noise), BATCH, shuffle=True, drop_last=True)
    return (x for _ in count() for x, _ in loader)


def consume(batches: Iterator[Tensor], number: int) -> None:
    for _ in islice(batches, number):
        pass


def windows(images: int, crop: bool) -> set[bytes]:
    """Every window of every image and its mirror image."""
    u = torch.from_numpy(pixels(images))
    if crop:
        u = F.pad(u.float(), (PADDING,) * 4, mode="reflect").to(torch.uint8)
    found = u.unfold(2, SIZE, 1).unfold(3, SIZE, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return {window.tobytes() for x in (found, found.flip(3)) for window in x.numpy()}


def check(allowed: set[bytes], name: str, batches: Iterator[Tensor], scale: tuple[float, float]) -> None:
    """See whether a batch is of windows of the images, from the steps and the zero of its grey levels, else exit."""
    x = next(batches)
    per_level, zero = scale
    levels = ((x - zero) / per_level).round().to(torch.uint8)
    if x.dtype != torch.float32 or len(x) != BATCH or not allowed.issuperset(u.tobytes() for u in levels.numpy()):
        sys.exit(f"error: {name} gives something else than windows of the images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds")
    parser.add_argument("--batches", type=int, default=20, help=f"batches of {BATCH} images a round")
    parser.add_argument("--images", type=int, default=10_000, help="images of the data set")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases: list[tuple[str, str, Callable[[int], Item]]] = [("flip", "torch", of_tensors)]
    if transforms := peer("torchvision.transforms"):
        cases.append(("flip", "torchvision", lambda images: of_pil(images, False, transforms)))
        cases.append(("flip+crop", "torchvision", lambda images: of_pil(images, True, transforms)))
    for augmentation, package, items in cases:
        crop, few = augmentation == "flip+crop", 2 * BATCH
        allowed = windows(few, crop)
        check(allowed, "our loader", ours(few, crop, noise=False), (1 / 128, 1 / 256 - 1))
        check(allowed, f"the loader with {package}", theirs(few, items(few), noise=False), (1 / 255, 0))
        for noise in (False, True):
            target = f"batches/{augmentation}" + ("/dequantised" if noise else "")
            sides = ours(options.images, crop, noise), theirs(options.images, items(options.images), noise)
            turns = [partial(consume, side, options.batches) for side in sides]
            race(target, package, *turns, options.rounds, images=options.batches * BATCH)


if __name__ == "__main__":
    main()
