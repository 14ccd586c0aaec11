"""Data whose densities are known in closed form: two half-moons in the plane, and images of independent pixels."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from datamodules.grey_levels import GreyLevels
from datamodules.in_memory import ImagesInMemory

Part = Literal["train", "test"]


class DrawnData(ImagesInMemory):
    """Real numbers drawn at random, brought under the contract of images by a unit and fine levels.

    A value ``v`` of the toy is ``v / unit`` in the images; noise levels and gradients of log-densities change with it:
    ``sigma / unit`` and ``unit * score``. Levels are 65,536, so that an image is within ``2**-16`` of its value, and
    dequantised images have the density of the toy averaged over bins of ``2**-15``.

    Args:
        count: Draws in the training part, from which the validation part is held out.
        test_count: Draws in the test part.
        data_seed: Seed of the draws, whatever the run's seed; the two parts are drawn apart.
        kwargs: Arguments of every data set.
    """

    grey = GreyLevels(2**16)
    sources: ClassVar[tuple[Path, ...]] = ()
    unit: float
    """Value in the toy's own unit of 1 in the images."""

    def __init__(
        self,
        count: PositiveInt = 10_000,
        test_count: PositiveInt = 10_000,
        data_seed: NonNegativeInt = 0,
        **kwargs: Any,
    ) -> None:
        self.sizes = {"train": count, "test": test_count}
        self.data_seed = data_seed
        super().__init__(**kwargs)

    def rng(self, part: Part) -> np.random.Generator:
        """Generator of a part's draws."""
        return np.random.default_rng([self.data_seed, 7, ("train", "test").index(part)])

    def values(self, x: Tensor) -> Tensor:
        """Images in the toy's own unit."""
        return self.unit * x


class TwoMoons(DrawnData):
    """Two interleaved half circles of radius 20 as two classes, each point a ``(2, 1, 1)`` image.

    Upper: ``(cos a, sin a)``; lower: ``(1 - cos a, 1/2 - sin a)``, with ``a`` uniform on [0, pi]; centred, times 20.
    The unit is 40, so that points lie within +-0.75 and +-0.375: a noise level of 10 in the toy is 0.25 here.

    Source: the toy of Chao et al. 2022 (arXiv:2203.14206), which scikit-learn calls moons; here at random places, so
    that training and test points differ.

    Args:
        jitter: Standard deviation of Gaussian noise on each coordinate, in units of the toy.
        kwargs: Arguments of every drawn data set.

    Raises:
        ValueError: If noise puts a point outside [-40, 40].
    """

    name = "two-moons"
    class_names = ("upper", "lower")
    shape = (2, 1, 1)
    data_classes = 2
    unit = 40.0
    scale = 20.0

    def __init__(self, jitter: NonNegativeFloat = 0.0, **kwargs: Any) -> None:
        self.jitter = jitter
        self.data_task = f"jitter {jitter:g}" if jitter else None  # other points, not to be ranked with those without
        super().__init__(**kwargs)

    @property
    def grid(self) -> tuple[Tensor, Tensor]:
        """Places ``(N, 2, 1, 1)`` over [-40, 40] x [-25, 25] in the toy's unit, 35 each way, for either class ``(N,)``.

        Where the official code draws fields of gradients, most of it far from any point.
        """
        across, up = torch.linspace(-40, 40, 35), torch.linspace(-25, 25, 35)
        places = torch.cartesian_prod(across, up)[..., None, None] / self.unit
        return places.repeat(2, 1, 1, 1), torch.arange(2).repeat_interleave(len(places))

    def load(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        rng, count = self.rng(part), self.sizes[part]
        angle, y = rng.uniform(0, math.pi, count), np.arange(count) % 2
        across = np.where(y == 0, np.cos(angle), 1 - np.cos(angle)) - 0.5
        up = np.where(y == 0, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
        points = self.scale * np.stack([across, up], 1) + self.jitter * rng.standard_normal((count, 2))
        if np.abs(points).max() > self.unit:
            raise ValueError(f"jitter {self.jitter} puts points outside +-{self.unit:g}; make it smaller")
        levels = self.grey.quantise(torch.from_numpy(points / self.unit))
        return levels.numpy().reshape(count, *self.shape), y


class UniformCube(DrawnData):
    """Images of independent pixels, each uniform on ``[-gamma / 2, gamma / 2]``, all of one class.

    Images have the toy's unit, so that noise is as large beside them as in the source. Up to ``gamma = 2`` they lie in
    [-1, 1]; above, their grey levels reach to ``gamma / 2``. The log-density is ``-ln gamma`` a pixel.

    Source: Yadin et al. 2024 (arXiv:2402.10095), the toy of uniform densities, with gamma 0.25, 0.5, 1, 2 and 3.

    Args:
        gamma: Width of the interval, rounded so that it covers whole levels.
        image_shape: Shape ``(C, H, W)`` of the images.
        kwargs: Arguments of every drawn data set.

    Raises:
        ValueError: If a side of the images is not positive, or ``gamma`` covers no level.
    """

    name = "uniform-cube"
    data_classes = 1
    unit = 1.0

    def __init__(
        self, gamma: PositiveFloat = 1.0, image_shape: tuple[int, int, int] = (3, 32, 32), **kwargs: Any
    ) -> None:
        if min(image_shape) < 1:
            raise ValueError(f"image_shape must be three positive numbers, got {tuple(image_shape)}")
        self.grey = GreyLevels(2**16, reach=max(1.0, gamma / 2))
        self.half_levels = round(gamma / self.grey.width / 2)
        if not self.half_levels:
            raise ValueError(f"gamma must be at least {self.grey.width:g}, got {gamma}")
        self.gamma = 2 * self.half_levels * self.grey.width
        self.shape = tuple(image_shape)
        self.data_task = f"gamma {gamma:g}"
        super().__init__(**kwargs)

    @property
    def nats_per_dim(self) -> float:
        """Log-density of every image, in nats a pixel."""
        return -math.log(self.gamma)

    def load(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        count, middle = self.sizes[part], self.grey.count // 2
        lowest, beyond = middle - self.half_levels, middle + self.half_levels
        levels = self.rng(part).integers(lowest, beyond, (count, *self.shape), dtype=np.int32)
        return levels, np.zeros(count, np.int64)
