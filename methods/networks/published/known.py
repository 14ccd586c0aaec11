"""Published checkpoints that can be asked for by name, and where their files are kept."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Published:
    """A file that its authors publish.

    Attributes:
        url: Where.
        sha256: Digest of its bytes.
        network: Configuration of the network that takes it, for readers.
    """

    url: str
    sha256: str
    network: str


KNOWN = {
    "256x256_diffusion_uncond": Published(
        url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        network=(
            "UNet of 3 channels, width 256, multipliers [1, 1, 2, 2, 4, 4], blocks 2, attention [8, 16, 32], "
            "head_channels 64, resampling residual, noise GuidedStepEmbedding"
        ),
    ),
}
"""Published files by name, each with its digest; a file of unknown digest is given by its path."""


def find(checkpoint: str) -> Path:
    """The file or folder of a checkpoint: the path itself, or that of the download of a name in ``KNOWN``.

    Raises:
        FileNotFoundError: If it is neither a file, a folder nor such a name.
        ConnectionError: If it cannot be downloaded.
        ValueError: If what was downloaded is not what was published.
    """
    if checkpoint in KNOWN:
        return _downloaded(checkpoint, KNOWN[checkpoint])
    path = Path(checkpoint).expanduser().absolute()
    if not path.is_file() and not path.is_dir():
        raise FileNotFoundError(
            f"no checkpoint at {path}; name a file by the key 'checkpoint', or one to download: {', '.join(KNOWN)}"
        )
    return path


def _downloaded(name: str, published: Published) -> Path:
    """The file in torch's own cache of weights, brought there if it is not there yet."""
    remedy = "name a local file by the key 'checkpoint'"
    path = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[-1]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(path), progress=sys.stderr.isatty())
        except OSError as error:
            why = getattr(error, "reason", None) or error.strerror or error
            raise ConnectionError(f"{name} could not be downloaded from {published.url}: {why}; {remedy}") from None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.sha256:
        raise ValueError(f"{path} is not {name} as published: its sha256 is {digest}; delete it, or {remedy}")
    return path
