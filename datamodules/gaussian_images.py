"""Images of Gaussian pixels, correlated as those of another data set are: their density is known in closed form."""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from datamodules.fingerprints import of_arrays, of_several
from datamodules.in_memory import ImagesInMemory
from datamodules.toys import DrawnData, Part

CHUNK = 1000
"""Images whose pixels are held in double precision at once."""


class GaussianImages(DrawnData):
    """Images from ``N(0, sqrt(1 - gamma) S + sqrt(gamma) I)``, all of one class, with ``S`` from another data set.

    ``S`` is the covariance of all images of the other's training part, their pixels in [-1, 1]. The unit is 8, beyond
    which lies no draw: no pixel's variance is above ``sqrt(2)``. The mean log-density a pixel is
    ``-(ln 2 pi + 1) / 2 - ln |covariance| / (2 d)`` in the toy, and ``ln 8`` more in the images.

    Source: Yadin et al. (arXiv:2402.10095) in their later text, the toy of correlated Gaussians, with the covariance of
    CIFAR-10 and gamma 0, 1e-5, 1e-3 and 0.1. The mean is not stated there.

    Args:
        like: The other data set; its batch size, labels and seed do not matter.
        gamma: Share of independent pixels, in [0, 1].
        kwargs: Arguments of every drawn data set.

    Raises:
        ValueError: If a pixel follows from others to within a level, so that there is no density.
    """

    name = "gaussian-images"
    data_classes = 1
    unit = 8.0

    def __init__(self, like: ImagesInMemory, gamma: ClosedUnitInterval = 0.0, **kwargs) -> None:
        self.like, self.gamma = like, gamma
        self.shape, self.sources = like.shape, like.sources
        self.data_task = f"gamma {gamma:g}, like {like.name}"
        super().__init__(**kwargs)

    @cached_property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the images' covariance, float64 ``(d, d)``."""
        covariance = (1 - self.gamma) ** 0.5 * _covariance(self.like)
        covariance.diagonal().add_(self.gamma**0.5)
        factor, failed = torch.linalg.cholesky_ex(covariance / self.unit**2)
        if failed or factor.diagonal().min() < self.grey.width:
            raise ValueError(f"gamma {self.gamma:g} is too small: some pixels of {self.like.name} follow from others")
        return factor

    def load(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        rng, count = self.rng(part), self.sizes[part]
        levels = torch.empty(count, len(self.scale_tril), dtype=self.grey.dtype, device="cpu")
        for rows in levels.split(CHUNK):
            z = torch.from_numpy(rng.standard_normal(rows.shape))
            rows.copy_(self.grey.quantise(z @ self.scale_tril.T))
        return levels.numpy().reshape(count, *self.shape), np.zeros(count, np.int64)

    def fingerprint(self, part: Literal["train", "test"]) -> str | None:
        """Hash of what the draws follow from: by the order of sums, a draw in millions may lie a level beside."""
        if self.stands_in:
            return None
        drawn = f"{part} {self.sizes[part]} {self.data_seed} {self.gamma}"
        held_out = of_arrays(self.splits["validation"]) if part == "train" else ""
        return of_several([self.like.fingerprint("train"), drawn, held_out])


def _covariance(data: ImagesInMemory) -> Tensor:
    """Covariance of a training part's pixels from -1 to 1, float64 ``(d, d)``."""
    u = torch.cat([data.images(part)[0] for part in ("train", "validation")]).flatten(1)
    mean = u.mean(0, dtype=torch.float64)
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64, device="cpu")
    for rows in u.split(CHUNK):
        deviations = rows - mean
        total.addmm_(deviations.T, deviations)
    return total * (2 / (data.grey.count - 1)) ** 2 / len(u)
