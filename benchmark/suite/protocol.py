"""Protocol of a suite: the settings by which all its cells are measured."""

from dataclasses import dataclass
from typing import Literal

REFERENCE = "reference"
"""Name of the suite's reference classifier among feature networks."""
FeatureName = Literal["reference", "inception", "clip-vit-b-32", "efficientnet-lite0"]


@dataclass(frozen=True)
class Protocol:
    """Settings by which all cells are measured.

    Attributes:
        samples: Generated images of each cell and guidance scale, balanced over the classes.
        seed: Seed of noise levels, noise and generation, beside the seed of the run.
        noisy_draws: Noise levels drawn for each test image in ``accuracy/noisy``.
        levels: Noise levels of the accuracy curve: the midpoints of this many equal parts of [0, 1].
        middle: Bounds of sigma / alpha; the levels of the curve between them make ``accuracy/middle``.
        denoise_times: Times at which the noise that a method's denoiser predicts is compared with the true noise.
        batch: Images evaluated at once.
        neighbours: ``k`` of precision and recall.
        features: Networks whose features compare samples with real images: the suite's ``reference`` classifier, and
            published ones (``metrics/published_networks.py``).
        part: Part of the data that methods are asked about. ``validation``, a share of the training images that nothing
            is trained on, is for choosing settings: the choice then has not seen the numbers that will be reported.
        test_images: Number of images of that part that methods are asked about, a stratified choice; all by default.
        real_images: Number of training images that samples are compared with, a stratified choice; all by default.
        whole_statistics: Whether means and covariances, those of the Frechet distances, are of all training images all
            the same, which are read once; kernel distances, precision and recall keep to ``real_images``.
        neighbour_images: Number of those that precision and recall use, a random choice; all by default.
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
    part: Literal["test", "validation"] = "test"
    test_images: int | None = None
    real_images: int | None = None
    whole_statistics: bool = False
    neighbour_images: int | None = None
