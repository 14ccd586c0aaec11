"""The one door to torchvision: which files it publishes, their download, and how they are read.

Nothing is unpacked here. torchvision unpacks what it downloads once the checksum is the published one, archives of
several files with tarfile's ``filter="data"``, which refuses links, devices and paths that lead out of the folder.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from datamodules.idx import damaged
from datamodules.stored import missing

Part = Literal["train", "test"]
Arrays = tuple[np.ndarray, np.ndarray]

IDX = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}


def idx_files(name: str, root: Path) -> None:
    """Download the idx files of MNIST or Fashion-MNIST to torchvision's folder below ``root``."""
    _download(name, IDX[name], root)


def usps(root: Path, part: Part, download: bool) -> Arrays:
    """Grey levels uint8 ``(N, 1, 16, 16)`` and labels ``(N,)``."""
    found = _open("usps", datasets.USPS, root, part, download, train=part == "train")
    return found.data[:, None], np.asarray(found.targets)


def svhn(root: Path, part: Part, download: bool) -> Arrays:
    """Grey levels uint8 ``(N, 3, 32, 32)`` and labels ``(N,)``."""
    found = _open("svhn", datasets.SVHN, root, part, download, split=part)
    return found.data, found.labels


def cifar(classes: Literal[10, 100], root: Path, part: Part, download: bool) -> Arrays:
    """Grey levels uint8 ``(N, 3, 32, 32)`` and labels ``(N,)``, the fine ones of CIFAR-100."""
    kind = {10: datasets.CIFAR10, 100: datasets.CIFAR100}[classes]
    found = _open(f"cifar{classes}", kind, root, part, download, train=part == "train")
    return found.data.transpose(0, 3, 1, 2), np.asarray(found.targets)


def _open(name: str, kind: Any, root: Path, part: Part, download: bool, **options: Any) -> Any:
    """A torchvision data set whose files lie in ``root`` or ``root/name`` and have the published checksums.

    The checksums come first: CIFAR's files are pickles, which run code when they are read.
    """
    files = _files(kind, part)
    folders = (root, root / name)
    folder = next((f for f in folders if any((f / file).is_file() for file, _ in files)), None)
    if folder is None:
        if not download:
            raise missing(f"{files[0][0]} of {name}", *folders, remedy=", or set download: true")
        folder = root
        _download(name, kind, root, **options)
    for file, md5 in files:
        if not check_integrity(folder / file, md5):
            raise damaged(folder / file, "its checksum is not the published one")
    return kind(folder, **options)


def _files(kind: Any, part: Part) -> list[tuple[str, str]]:
    """Path below the root and md5 of each file that torchvision reads; CIFAR reads no part without the other."""
    if not issubclass(kind, datasets.CIFAR10):
        _, file, md5 = kind.split_list[part]
        return [(file, md5)]
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return [(f"{kind.base_folder}/{file}", md5) for file, md5 in files]


def _download(name: str, kind: Any, root: Path, **options: Any) -> None:
    """Let torchvision download to ``root``, one process at a time.

    Raises:
        ConnectionError: If that fails, in one line.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            kind(root, download=True, **options)
    except (OSError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise ConnectionError(f"{name} could not be downloaded to {root.absolute()}: {why}") from None
