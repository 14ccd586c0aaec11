"""How every cell of a suite is measured."""

from dataclasses import dataclass
from typing import Literal

REFERENCE = "reference"
"""Among feature networks, the suite's reference classifier."""
FeatureName = Literal["reference", "inception", "clip-vit-b-32", "efficientnet-lite0"]


@dataclass(frozen=True)
class Protocol:
    """How every cell is measured.

    Attributes:
        samples: Generated images a cell and guidance scale, balanced over the classes.
        seed: Seed of noise levels, noise and generation; not a run's seed.
        noisy_draws: Noise levels drawn for each test image in ``accuracy/noisy``.
        levels: Noise levels of the accuracy curve, the midpoints of so many equal parts of [0, 1].
        middle: The levels of the curve whose sigma / alpha lies between these bounds make ``accuracy/middle``.
        denoise_times: Times at which the noise predicted by a method's own denoiser is compared with the true one.
        batch: Images evaluated at once.
        neighbours: ``k`` of precision and recall.
        features: Networks on whose features samples are compared with real images: the suite's ``reference``
            classifier, and those that others trained (``metrics/published_networks.py``).
        test_images: Test images that answers are asked for, a stratified choice; all when not given.
        real_images: Training images that samples are held against, a stratified choice; all when not given.
        neighbour_images: Of those, the images that precision and recall look at, a random choice; all when not given.
    """

    samples: int = 1000
    seed: int = 0
    noisy_draws: int = 4
    levels: int = 20
    middle: tuple[float, float] = (0.5, 1.25)
    denoise_times: tuple[float, ...] = (0.02, 0.2, 0.6, 0.8)
    batch: int = 500
    neighbours: int = 3
    features: tuple[FeatureName, ...] = (REFERENCE,)
    test_images: int | None = None
    real_images: int | None = None
    neighbour_images: int | None = None
