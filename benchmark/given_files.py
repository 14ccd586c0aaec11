"""Files of samples that somebody else made, read as they come."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.errors import InputError, one_line

LEAST = 10
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
ALIASES = {"images": ("images", "arr_0"), "labels": ("labels", "arr_1")}
"""Names of arrays: ours, and those of files that were saved without names."""


def read_samples(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Grey levels uint8 ``(N, H, W, C)`` and the class that each was asked for ``(N,)``; None where none was.

    Args:
        path: An ``.npz`` file with ``images`` (``(N, H, W, C)``, or ``(N, H, W)`` where there is one channel) and, for
            samples that were asked for by class, ``labels``; or a folder of lossless image files, in folders named by
            class number if they were asked for by class.

    Raises:
        InputError: If they cannot be used, naming the file and what to do.
    """
    images, labels = _folder(path) if path.is_dir() else _archive(path)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"{path}: images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}")
    if len(images) < LEAST:
        raise InputError(f"{path}: {len(images)} samples are too few to compare; give at least {LEAST}")
    if labels is None or (labels.shape == (len(images),) and (labels == -1).all()):
        return images, None
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels must be {len(images)} integers, got {labels.dtype} {labels.shape}")
    return images, labels


def _archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise InputError(f"{path} is a single array; save it with numpy.savez(path, images=array)")
        with file:
            found = {
                ours: next((file[name] for name in names if name in file), None) for ours, names in ALIASES.items()
            }
    except InputError:
        raise
    except Exception as error:  # of zipfile, zlib and NumPy, which have no common base
        raise InputError(f"{path} cannot be read as .npz: {one_line(error)}; save it anew") from None
    if found["images"] is None:
        raise InputError(f"{path} holds no array 'images', only {', '.join(file.files) or 'nothing'}")
    return found["images"], found["labels"]


def _folder(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise InputError(f"{path} holds no files; put image files there")
    for file in files:
        if file.suffix.lower() not in LOSSLESS:
            raise InputError(f"{file} is not a lossless image ({', '.join(LOSSLESS)}); save samples as PNG or .npz")
    depths = {len(file.relative_to(path).parts) for file in files}
    labels = None
    if depths != {1}:
        names = [file.parent.name for file in files]
        odd = next((name for name in names if not name.isdecimal()), None)
        if depths != {2} or odd is not None:
            raise InputError(
                f"{path}: put all files directly into it, or into folders named by class number, "
                + (f"not {odd!r}" if odd is not None and depths == {2} else "not deeper")
            )
        labels = np.array([int(name) for name in names])
    images = [_pixels(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{file} has shape {image.shape}, {files[0]} has {images[0].shape}; make them alike")
    return np.stack(images), labels


def _pixels(path: Path) -> np.ndarray:
    """Grey levels ``(H, W, C)`` of a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB"):
                    raise InputError(f"{path} has colour mode {image.mode}; save it as 8-bit grey or RGB")
                pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels
