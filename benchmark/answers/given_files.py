"""Files of given samples: their content and their pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.errors import InputError, shown
from benchmark.system.archive import Archive
from benchmark.system.sample_files import MOST, check_samples_at, sample_files
from datamodules.image_files import opened, plain

ALIASES = {"images": ("images", "arr_0"), "labels": ("labels", "arr_1")}
"""Names of arrays: ours, and those of files saved without names."""
FORMATS = ("PNG", "BMP", "TIFF", "PPM", "JPEG")
"""Formats that are recognised; JPEG is then refused."""
LOSSY = ("jpeg", "tiff_jpeg", "webp")
"""Pillow's names of lossy compressions of a TIFF file."""


@dataclass(frozen=True)
class Found:
    """Samples of known shape whose pixels are not yet read.

    Attributes:
        shape: ``(N, H, W)`` or ``(N, H, W, C)``; for image files that of the first one.
        dtype: Type of the stored pixels.
        read: Reads the pixels.
        labels: Class of each sample, integers ``(N,)``, if an array states it.
        folders: Name of the folder of each sample, if they lie in folders.
        told: Description of what is read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    labels: np.ndarray | None = None
    folders: Sequence[str] | None = None
    told: str = ""


def found_at(path: Path) -> Found:
    """Samples in an ``.npz`` file with ``images`` and, for samples by class, ``labels``; or in a folder.

    A folder holds lossless image files, or a folder of them for each class.

    Raises:
        InputError: If no samples can be used; names the file and what to do.
    """
    if path.is_dir():
        return _in_folder(path)
    check_samples_at(path)
    return _in_archive(path)


def _in_archive(path: Path) -> Found:
    archive = Archive(path)
    names = {ours: next((name for name in known if name in archive.names), None) for ours, known in ALIASES.items()}
    images, labels = names["images"], names["labels"]
    if images is None:
        raise InputError(f"{path} holds no array 'images', only {_some(archive.names, archive.others)}")
    declared = archive.declared(images)
    unread = [name for name in (*archive.names, *archive.others) if name not in (images, labels)]
    told = f"images from array {images}" + (f", classes from array {labels}" if labels else ", no classes")
    told += f" ({_some(unread)} left unread)" if unread else ""
    y = None if labels is None else _labels(archive, labels, declared.shape)
    return Found(declared.shape, declared.dtype, lambda: archive.read(images), y, told=told)


def _labels(archive: Archive, name: str, images: tuple[int, ...]) -> np.ndarray | None:
    """Labels, as many as images; None if all are -1."""
    declared = archive.declared(name)
    if not images or declared.shape != images[:1] or declared.dtype.kind not in "iu":
        expected = f"labels must be {images[0] if images else 0} integers"
        raise InputError(f"{archive.path}: {expected}, got {declared.dtype} {shown(declared.shape, 60)}")
    if images[0] > MOST:
        raise InputError(f"{archive.path}: {images[0]} samples; give at most {MOST}")
    labels = archive.read(name)
    return None if (labels == -1).all() else labels


def _some(arrays: Sequence[str], others: Sequence[str] = ()) -> str:
    """The first names in an archive, for a message."""
    if not arrays and others:
        return f"files such as {shown(others[0], 60)} ({len(others)} in all); unpack them and give their folder"
    names = [shown(name, 30) for name in arrays[:3]]
    return ", ".join(names) + (f" and {len(arrays) - 3} more" if len(arrays) > 3 else "") or "nothing"


def _in_folder(path: Path) -> Found:
    by_folder = sample_files(path)
    files = [file for of_folder in by_folder.values() for file in of_folder]
    folders = None if "" in by_folder else [name for name, inside in by_folder.items() for _ in inside]
    first = _pixels(files[0])
    told = "images from files" if folders is None else f"images from folders ({len(by_folder)})"
    return Found((len(files), *first.shape), first.dtype, lambda: _all_pixels(files), folders=folders, told=told)


def _all_pixels(files: list[Path]) -> np.ndarray:
    """Pixels ``(N, H, W, C)``, in colour if any file is."""
    first = _pixels(files[0])
    out = np.empty((len(files), *first.shape), np.uint8)
    for i, file in enumerate(files):
        pixels = _pixels(file)
        if pixels.shape[:2] != out.shape[1:3]:
            raise InputError(f"{file} has {_size(pixels)} pixels, {files[0]} has {_size(first)}; make them alike")
        if pixels.shape[2] > out.shape[3]:
            out = np.repeat(out, pixels.shape[2], axis=3)
        out[i] = pixels
    return out


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"


def _pixels(path: Path) -> np.ndarray:
    """Grey levels ``(H, W, C)`` of a file."""
    try:
        found = opened(path, FORMATS)
        if found.format == "JPEG" or found.image.info.get("compression") in LOSSY:
            raise InputError(f"{path} is a JPEG file or compressed alike, which changes pixels; save samples as PNG")
        if found.pictures > 1:
            raise InputError(f"{path} holds {found.pictures} pictures; save each in a file of its own")
        pixels = np.asarray(plain(path, found))
    except ValueError as error:
        raise InputError(str(error)) from None
    return pixels[..., None] if pixels.ndim == 2 else pixels
