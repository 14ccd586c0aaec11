"""The contract of a data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt
from lightning import LightningDataModule
from torch import Tensor

from datamodules.fingerprints import of_arrays
from datamodules.grey_levels import GreyLevels
from datamodules.splits import LabelSplit, held_out, proportional_counts, take_per_class
from datamodules.transforms import Augmentation
from methods.philox import uniform

Part = Literal["train", "validation", "test"]

_standing_in: ContextVar[bool] = ContextVar("standing_in", default=False)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Data sets made in here, of known size, hold as many black images of every class in turn; their files stay unread.

    For what asks for shapes and counts alone, such as a forecast of costs.
    """
    token = _standing_in.set(True)
    try:
        yield
    finally:
        _standing_in.reset(token)


def standing_in() -> bool:
    """Tell whether data sets of known size are to leave their files unread."""
    return _standing_in.get()


class ImageData(LightningDataModule, ABC):
    """Images with classes in three parts: training, validation and test.

    Batches are ``{"labeled": (x, y)}``, with ``"unlabeled": x`` where an unlabeled batch size is given. Images are in
    [-1, 1], dequantised. Batch ``k`` depends on ``(seed, k)`` alone, so that a resumed run repeats and skips
    nothing.

    Args:
        batch_size: Labeled images an optimiser step, over all devices and accumulated batches.
        unlabeled_batch_size: Unlabeled images, likewise; 0 leaves them out.
        labels: Which images are labeled; all of them when not given.
        validation_fraction: Share of the training part held out for choices, stratified; at least one image of each
            class that has two.
        split_seed: Seed of the validation part, and beside ``seed`` of the labels that are kept.
        seed: Seed of the labels that are kept, of order, augmentation and dequantisation; the run's seed. Runs of
            several seeds so differ in their labels too, which is most of what differs where labels are few.
    """

    name: str
    shape: tuple[int, int, int]
    data_classes: int
    grey: GreyLevels
    sizes: ClassVar[dict[str, int]] = {}
    """Images in the official ``train`` and ``test`` parts, where that is known before they are read."""
    sources: tuple[Path, ...] | None = None
    """Files and folders that images and labels come from, none for what is drawn; None if the data set does not tell.

    What a run has finished is known by what the data hold. They are looked at again when a source has another state,
    and each time where there are none told.
    """
    augmentation = Augmentation()
    """Random changes of training images; none, unless a data set says so."""
    class_names: Sequence[str] = ()
    """Names of the data set's classes, as many as ``data_classes``; their numbers where a data set gives none."""
    data_task: str | None = None
    """Meaning of the data set's classes, where its name does not say so."""
    official_validation: np.ndarray | None = None
    """Training images that the makers of the data set held out for choices; drawn here where they did not."""

    def __init__(
        self,
        batch_size: PositiveInt = 128,
        unlabeled_batch_size: NonNegativeInt = 0,
        labels: LabelSplit | None = None,
        validation_fraction: OpenUnitInterval = 0.1,
        split_seed: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.labels, self.validation_fraction = labels, validation_fraction
        self.split_seed, self.seed = split_seed, seed
        self.stands_in = bool(self.sizes) and standing_in()
        self.classes = self.data_classes if labels is None else labels.classes(self.data_classes)
        self.class_names = list(self.class_names) or [str(k) for k in range(self.data_classes)]
        self._split(np.arange(self.sizes["train"]) % self.data_classes if self.stands_in else self.training_labels())

    @abstractmethod
    def training_labels(self) -> np.ndarray:
        """The data set's class of each image of the official training part, ``(N,)``."""

    @abstractmethod
    def images(self, part: Part) -> tuple[Tensor, Tensor]:
        """Grey levels ``(N, C, H, W)`` and the task's true labels int64 ``(N,)`` of a part.

        Levels are uint8 where 256 are enough. A large data set gives a stated subset.
        """

    @abstractmethod
    def train_dataloader(self) -> Iterable[dict[str, Any]]:
        """This device's share of the batches, from the trainer's step to the end of the epoch."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[dict[str, Any]]:
        """The whole validation part, every image on exactly one device."""

    @abstractmethod
    def test_dataloader(self) -> Iterable[dict[str, Any]]:
        """The whole test part, every image on exactly one device."""

    def predict_dataloader(self) -> Iterable[dict[str, Any]]:
        return self.test_dataloader()

    def fingerprint(self, part: Literal["train", "test"]) -> str | None:
        """Hash of all images and labels of an official part; None where the data set stands in.

        Other images have another one, the same images in another folder the same. Which of them are labeled does not
        count: that follows from settings.
        """
        if self.stands_in:
            return None
        if part == "test":
            return of_arrays(*(tensor.numpy() for tensor in self.images("test")))
        tensors = [tensor for name in ("train", "validation") for tensor in self.images(name)]
        return of_arrays(*(tensor.numpy() for tensor in tensors))

    def stand_in(self, part: Part) -> tuple[Tensor, Tensor]:
        """Black images, which take no memory, and every class in turn, in the place of ``images``."""
        rows = np.arange(self.sizes["test"]) if part == "test" else self.splits[part]
        black = torch.zeros(1, *self.shape, dtype=self.grey.dtype, device="cpu")
        return black.expand(len(rows), -1, -1, -1), self.task_labels(rows % self.data_classes)

    def checked(self, y: np.ndarray, part: str) -> np.ndarray:
        """The labels of a part, if they are classes of the data set.

        Raises:
            ValueError: If they are not.
        """
        outside = y[(y < 0) | (y >= self.data_classes)]
        if len(outside):
            raise ValueError(
                f"{self.name}: the {part} part holds the label {outside[0]}, the classes are 0..{self.data_classes - 1}"
            )
        return y

    def _split(self, y: np.ndarray) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in (0, 1), got {self.validation_fraction}")
        validation = self.official_validation
        if validation is None:
            rng = np.random.default_rng([self.split_seed, 0])
            validation = held_out(y, self.validation_fraction, self.data_classes, rng)
        kept = np.setdiff1d(np.arange(len(y)), validation, assume_unique=True)
        if np.bincount(y[kept], minlength=self.data_classes).min() < 1:
            raise ValueError(f"validation_fraction {self.validation_fraction} leaves a class without training images")
        rng = np.random.default_rng([self.split_seed, 1, self.seed])
        every = np.arange(len(kept))
        self.labeled_indices = every if self.labels is None else self.labels.labeled(y[kept], self.data_classes, rng)
        self.unlabeled_indices = np.setdiff1d(every, self.labeled_indices, assume_unique=True)
        self.splits = {"train": kept, "validation": validation, "labeled": kept[self.labeled_indices]}
        self._train_y = self.task_labels(y[kept])

    def task_labels(self, y: np.ndarray) -> Tensor:
        """The task's labels int64 ``(N,)`` from the data set's."""
        task = y if self.labels is None else self.labels.relabel(y)
        return torch.from_numpy(task.astype(np.int64))

    def some_images(self, part: Part, count: int | None, seed: list[int]) -> tuple[Tensor, Tensor]:
        """``images`` of a part, or ``count`` of them with the class proportions of all if there are more."""
        u, y = self.images(part)
        if count is None or count >= len(y):
            return u, y
        counts = proportional_counts(y.numpy(), count, self.classes)
        rows = torch.from_numpy(take_per_class(y.numpy(), counts, np.random.default_rng(seed)))
        return u[rows], y[rows]

    def blocks(self, part: Part, size: int) -> Iterator[Tensor]:
        """Grey levels ``(<= size, C, H, W)`` of all images of a part, in order, where ``images`` may give fewer."""
        return iter(self.images(part)[0].split(size))

    @property
    def device(self) -> torch.device:
        """The trainer's device, where batches are wanted; the CPU without a trainer."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def task(self) -> str | None:
        """Meaning of the task's classes, where they are not the data set's by its name."""
        tasks = [self.data_task, None if self.labels is None else self.labels.task]
        return ": ".join(task for task in tasks if task) or None

    @property
    def task_classes(self) -> np.ndarray:
        """The task's class of each class of the data set, ``(data_classes,)``."""
        classes = np.arange(self.data_classes)
        return classes if self.labels is None else self.labels.relabel(classes)

    @property
    def task_class_names(self) -> list[str]:
        """Names of the task's classes, as many as ``classes``."""
        names = list(self.class_names)
        return names if self.labels is None else self.labels.class_names(names)

    @property
    def class_prior(self) -> Tensor:
        """Share of each class in the unlabeled pool, or in the training part where all is labeled, ``(K,)``."""
        pool = self._train_y[self.unlabeled_indices] if len(self.unlabeled_indices) else self._train_y
        return torch.bincount(pool, minlength=self.classes) / len(pool)

    @property
    def n_labeled(self) -> int:
        """Labeled training images."""
        return len(self.labeled_indices)

    def pools(self) -> dict[str, tuple[Tensor, int]]:
        """Rows of the training part that each stream of batches draws from, and how many a step."""
        pools = {"labeled": (torch.as_tensor(self.labeled_indices), self.batch_size)}
        if self.unlabeled_batch_size:
            # With every label known there is no pool apart; all images then serve without their labels.
            pool = self.unlabeled_indices if len(self.unlabeled_indices) else np.arange(len(self._train_y))
            pools["unlabeled"] = (torch.as_tensor(pool), self.unlabeled_batch_size)
        return pools

    def augmented(self, u: Tensor, *key: int) -> Tensor:
        """Grey levels changed at random as the data set's augmentation says, a function of ``key``."""
        return self.augmentation(u, np.random.default_rng([self.seed, *key]))

    def dequantised(self, u: Tensor, *key: int) -> Tensor:
        """Images with uniform noise inside their bins, a function of ``key``; drawn where they are, see ``philox``."""
        if u.device.type == "cpu":
            v = torch.from_numpy(np.random.default_rng([self.seed, *key]).random(u.shape, dtype=np.float32))
        else:
            v = _counted(u, self.seed, *key)
        return self.grey.dequantise(u, v)


def _counted(u: Tensor, *key: int) -> Tensor:
    """Uniform draws like ``u`` on its device, an image's by ``key`` and its place in ``u``."""
    word = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return uniform(word, torch.arange(len(u), device=u.device), range(1), u.shape[1:])[0]
