"""Feature networks: from grey levels to the features and class probabilities that fidelity metrics compare.

A feature network is a module ``(uint8 images (N, C, H, W)) -> features (N, D), probabilities (N, K)`` with a ``name``
that goes into the protocol of every number made with it. ``extract`` runs one over a set of images.
"""

import io
import os
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmark.errors import InputError
from benchmark.files import digest_file, replacing
from benchmark.metrics.arrays import Array, full_float32
from benchmark.metrics.frechet import Statistics


class FeatureNetwork(nn.Module, ABC):
    """Features and class probabilities of images; the name is part of every result's protocol."""

    name: str

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 ``(N, C, H, W)`` to float32 features ``(N, D)`` and probabilities ``(N, K)``."""


@torch.no_grad()
def extract(
    network: FeatureNetwork, images: Array, batch_size: int = 64, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Features and probabilities of ``images``, float32 ``(N, D)`` and ``(N, K)``.

    In evaluation mode, full float32 and deterministic algorithms: the batch size changes the result by rounding only.

    Args:
        network: Moved to ``device`` and put into evaluation mode.
        images: Grey levels, uint8 ``(N, C, H, W)``; int32 where there are more of them than 256.
        batch_size: Images at a time.
        device: Where the network runs.

    Raises:
        ValueError: If images are not whole numbers ``(N, C, H, W)``: floats would pass silently as dark images.
    """
    images = torch.as_tensor(images)
    if images.dtype not in (torch.uint8, torch.int32) or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be uint8 or int32 (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    network.to(device).eval()
    with full_float32():
        parts = [network(part.to(device)) for part in images.split(batch_size)]
    features, probabilities = (torch.cat(column).float().cpu().numpy() for column in zip(*parts, strict=True))
    return features, probabilities


class ClassifierFeatures(FeatureNetwork):
    """Features of a suite's reference classifier: ``(features - mean) / scale``.

    One scale serves all dimensions. Dividing each by its own deviation would let nearly dead dimensions dominate.

    Args:
        classifier: ``x -> logits`` with ``features(x) -> (N, D)``, on images in [-1, 1]; it is frozen.
        to_x: Grey levels to images in [-1, 1], e.g. ``GreyLevels(17).centre``.
        name: For the protocol; says the network and what it was trained on.
        mean: Centre of the features, ``(D,)``.
        scale: What they are divided by.
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
        reference: Array,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
    ) -> "ClassifierFeatures":
        """Centre and scale so that ``reference``, the training images, have mean 0 and total variance ``D``.

        Raises:
            ValueError: If the features of ``reference`` do not vary.
        """
        features, _ = extract(cls(classifier, to_x, name), reference, batch_size, device)
        statistics = Statistics.of(features)
        scale = float(np.sqrt(statistics.covariance.diagonal().mean()))
        if not scale > 0:
            raise ValueError(f"the features of {name} are the same for all {len(features)} reference images")
        return cls(classifier, to_x, name, statistics.mean, scale).to(device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.to_x(images)
        return (self.classifier.features(x) - self.mean) / self.scale, self.classifier(x).softmax(1)


INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def _inception_weights() -> Path:
    """The weights in torch's download folder, fetched on first use."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.exists():
        try:
            with urllib.request.urlopen(INCEPTION_URL, timeout=30) as source, replacing(path) as part:
                part.write_bytes(source.read())
        except (OSError, HTTPException, InputError) as error:
            raise InputError(
                f"cannot download the Inception weights from {INCEPTION_URL} ({error}); "
                f"set the option `weights` to a local copy of {INCEPTION_FILE}"
            ) from error
    return path


def _load_weights(path: Path, sha256: str) -> io.BytesIO:
    """The file's tensors as a fresh archive; nothing but tensors is ever unpickled."""
    if not path.is_file():
        raise InputError(f"option `weights`: no file {path}; it must be a local copy of {INCEPTION_FILE}")
    found = digest_file(path)
    if found != sha256:
        raise InputError(f"option `weights`: {path} has sha256 {found}, expected {sha256}; get it anew")
    clean = io.BytesIO()
    torch.save(torch.load(path, map_location="cpu", weights_only=True), clean)
    clean.seek(0)
    return clean


class InceptionFeatures(FeatureNetwork):
    """Inception v3 of the original FID, as converted by torch-fidelity; the network of the papers' numbers.

    Images are resized to 299x299 as TensorFlow 1 did. Grey images are repeated to three channels. Probabilities come
    from the logits without bias, as the Inception score has it. The network is torch-fidelity's with batch norms folded
    into the convolutions and channels last, which changes features by about 1e-6 relative.

    Args:
        weights: Local copy of ``weights-inception-2015-12-05-6726825d.pth``; by default it is downloaded once into
            torch's hub folder.
        layer: ``pool`` (2048 features: FID, KID, precision and recall) or ``mixed_6d`` (first 7 channels of its 1x1
            branch, 17 * 17 * 7 = 2023 features: sFID).
        sha256: Of the weights file, checked before it is read. Other weights than the papers' get another name.

    Raises:
        InputError: If the weights are neither at hand nor to be downloaded, or the digest differs.
    """

    size = 299
    stages = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
    )

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        layer: Literal["pool", "mixed_6d"] = "pool",
        sha256: str = INCEPTION_SHA256,
    ) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        if layer not in ("pool", "mixed_6d"):
            raise ValueError(f"layer must be pool or mixed_6d, got {layer}")
        file = _load_weights(_inception_weights() if weights is None else Path(weights), sha256)
        self.name = f"inception-v3-compat/{layer}" + ("" if sha256 == INCEPTION_SHA256 else f"@{sha256[:8]}")
        self.layer = layer
        self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)
        for block in list(self.network.modules()):
            if hasattr(block, "bn"):
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[1] != 3:
            raise ValueError(f"Inception reads images of 1 or 3 channels, got {images.shape[1]}")
        x = ((resize(images.float(), self.size) - 128) / 128).contiguous(memory_format=torch.channels_last)
        spatial = None
        for stage in self.stages:
            module = getattr(self.network, stage)
            if stage == "Mixed_6d" and self.layer == "mixed_6d":
                spatial = module.branch1x1(x)[:, :7].flatten(1)
            x = module(x)
        pooled = x.flatten(1)
        probabilities = (pooled @ self.network.fc.weight.T).softmax(1)
        return pooled if spatial is None else spatial, probabilities


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of ``(B, C, H, W)`` to squares on TensorFlow 1's grid: row ``i`` lies at ``i * H / size``."""
    for dim in (3, 2):
        length = x.shape[dim]
        position = torch.arange(size, dtype=torch.float32, device=x.device) * (length / size)
        low = position.long()
        high = (low + 1).clamp(max=length - 1)
        weight = (position - low).view(-1, *[1] * (3 - dim))
        below = x.index_select(dim, low)
        x = below + (x.index_select(dim, high) - below) * weight
    return x
