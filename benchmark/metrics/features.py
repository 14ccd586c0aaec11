"""Feature networks: features and class probabilities of images, which fidelity metrics compare.

A feature network has a ``name``, part of the protocol of every number made with it. ``extract`` runs one over a set of
images.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.metrics.arrays import Array, full_float32
from benchmark.metrics.frechet import Statistics
from benchmark.system.arrays import StoredRows


class FeatureNetwork(nn.Module, ABC):
    """A network whose outputs for images are compared; its name is part of every result's protocol.

    Networks of known cost state ``numbers``, the count of outputs for an image, and ``flops``, their cost.
    """

    name: str
    numbers: int
    flops: float

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float32 matrices of uint8 images ``(N, C, H, W)``: ``features (N, D)`` always.

        Classifiers also return ``probabilities (N, K)``, and networks whose features before pooling are compared too
        ``spatial (N, D')``.
        """


@torch.no_grad()
def extract(
    network: FeatureNetwork,
    images: Array | StoredRows,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """A network's outputs for images, by name, float32 ``(N, ...)``.

    It runs in evaluation mode, full float32 and with deterministic algorithms: the batch size changes only rounding.

    Args:
        network: Moved to ``device`` and put into evaluation mode.
        images: Grey levels, uint8 ``(N, C, H, W)``; int32 for more than 256 levels. Stored ones are ``(N, H, W, C)``
            and read a batch at a time.
        batch_size: Images at once.
        device: Device of the network.
        report: Receives the number of images done after each batch.

    Raises:
        ValueError: If images are not whole numbers ``(N, C, H, W)``: floats would pass silently as dark images.
    """
    stored = isinstance(images, StoredRows)
    images = images if stored else torch.as_tensor(images)
    if images.dtype not in (torch.uint8, torch.int32, np.uint8, np.int32) or len(images.shape) != 4 or not len(images):
        raise ValueError(f"images must be uint8 or int32 (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    network.to(device).eval()
    with full_float32():
        parts = []
        for part in images.split(batch_size):
            u = torch.from_numpy(part).permute(0, 3, 1, 2) if stored else part
            parts.append(network(u.to(device)))
            report(min(len(parts) * batch_size, len(images)))
    return {name: torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in parts[0]}


class ClassifierFeatures(FeatureNetwork):
    """Features of a suite's reference classifier: ``(features - mean) / scale``.

    One scale serves all dimensions. Dividing each by its own deviation would let nearly dead dimensions dominate.

    Args:
        classifier: ``x -> logits`` with ``features(x) -> (N, D)``, on images in [-1, 1]; it is frozen.
        to_x: Grey levels to images in [-1, 1], e.g. ``GreyLevels(17).centre``.
        name: Name for the protocol; states the network and its training data.
        mean: Centre of the features, ``(D,)``.
        scale: Divisor of the features.
    """

    def __init__(
        self,
        classifier: nn.Module,
        to_x: Callable[[Tensor], Tensor],
        name: str,
        mean: Array | float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.classifier, self.to_x, self.name = classifier.requires_grad_(False).eval(), to_x, name
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @classmethod
    def fit(
        cls,
        classifier: nn.Module,
        to_x: Callable[[Tensor], Tensor],
        name: str,
        reference: Array | StoredRows,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
    ) -> "ClassifierFeatures":
        """Centre and scale so that ``reference``, the training images, have mean 0 and total variance ``D``.

        Raises:
            ValueError: If the features of ``reference`` do not vary.
        """
        features = extract(cls(classifier, to_x, name), reference, batch_size, device)["features"]
        statistics = Statistics.of(features)
        scale = float(np.sqrt(statistics.covariance.diagonal().mean()))
        if not scale > 0:
            raise ValueError(f"the features of {name} are the same for all {len(features)} reference images")
        return cls(classifier, to_x, name, statistics.mean, scale).to(device)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.to_x(images)
        features = (self.classifier.features(x) - self.mean) / self.scale
        return {"features": features, "probabilities": self.classifier(x).softmax(1)}
