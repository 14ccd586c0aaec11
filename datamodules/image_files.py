"""Folders of PNG and JPEG files: what lies where, and its pixels, read once and kept as one array of bytes."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.lib import format as npy
from PIL import Image, TiffImagePlugin

from datamodules.transforms import resized

CACHE = ".diffclass-cache"
"""Folder of kept arrays below the data root; may be deleted at any time."""
SUFFIXES = (".png", ".jpg", ".jpeg")
Read = Callable[[Path], np.ndarray]
"""Reads a file's pixels, uint8 ``(H, W)`` for grey or ``(H, W, 3)`` for RGB; its ``repr`` says all about it."""
VALIDATION = ("val", "valid", "validation", "dev")
"""Names of the folder of the validation part."""
LAYOUT = 2
"""Number of this file's way to make arrays from files; another number makes kept arrays void."""


def unusable(path: Path, why: str) -> ValueError:
    """The error that a file or folder cannot be used, with what to do about it."""
    return ValueError(f"{path}: {why}")


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Images of each class, in the order of their names; names that start with a dot are passed over.

    Classes are in the order of their names too, or of their numbers where all names are numbers.

    Raises:
        ValueError: If there is no class, a class has no image or a name that is no text, or something else
            than an image lies there.
    """
    classes: dict[str, list[Path]] = {}
    for entry in _entries(folder):
        if not entry.is_dir():
            raise unusable(entry, "a file among the folders of the classes; remove it")
        if any("\ud800" <= c <= "\udfff" for c in entry.name):  # Python's stand-ins for bytes that are no text
            raise unusable(entry, "the name of this class is not UTF-8 text; rename the folder")
        classes[entry.name] = _entries(entry)
        if not classes[entry.name]:
            raise unusable(entry, "the folder of this class has no image; add some or remove it")
        other = next((file for file in classes[entry.name] if file.suffix.lower() not in SUFFIXES), None)
        if other is not None:
            raise unusable(other, f"not named as an image ({', '.join(SUFFIXES)}); remove it or convert it")
    if not classes:
        raise unusable(folder, "no folders of classes in it; put the images of each class in a folder of its name")
    if all(name.isascii() and name.isdecimal() for name in classes):
        return dict(sorted(classes.items(), key=lambda item: int(item[0])))
    return classes


def folders_of_parts(folder: Path, test_fraction: float | None) -> dict[str, dict[str, list[Path]]]:
    """Images of each class of the folders of the parts, or of the one folder to be split.

    Raises:
        ValueError: If folders and ``test_fraction`` do not go together, or a class is missing in one.
    """
    official = {
        "train": [folder / "train"],
        "validation": [folder / name for name in VALIDATION],
        "test": [folder / "test"],
    }
    there = {part: [place for place in places if place.is_dir()] for part, places in official.items()}
    if not there["train"] and not there["test"]:
        if test_fraction is None:
            raise unusable(
                folder, "no folders train and test in it; add them, or give test_fraction to set images apart"
            )
        return {"all": class_folders(folder)}
    for part, other in (("train", "test"), ("test", "train")):
        if not there[part]:
            raise unusable(folder, f"it has a folder {other} but no {part}")
    if test_fraction is not None:
        raise unusable(folder, f"it has a folder test; leave out test_fraction, got {test_fraction}")
    if len(there["validation"]) > 1:
        names = " and ".join(place.name for place in there["validation"])
        raise unusable(folder, f"it has folders {names}; leave one for the validation part")
    found = {part: class_folders(places[0]) for part, places in there.items() if places}
    if lone := found["train"].keys() ^ found["test"].keys():
        raise unusable(folder, f"class {min(lone)} is in one of train and test only; both need the same classes")
    if unknown := found.get("validation", {}).keys() - found["train"].keys():
        raise unusable(there["validation"][0], f"class {min(unknown)} is not in train; remove it")
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def decode(path: Path, size: int | None = None) -> np.ndarray:
    """Pixels of one image, uint8 ``(H, W)`` for grey or ``(H, W, 3)`` for RGB.

    Anything that is not 8-bit grey or RGB already is refused, unless it loses nothing on the way there: black and
    white, palettes, and an alpha channel that is opaque everywhere.

    Args:
        path: A PNG or JPEG file.
        size: Height and width in pixels to scale to.

    Raises:
        ValueError: If the file cannot be read or would lose something.
    """
    image = plain(path, opened(path))
    return np.asarray(image if size is None else resized(image, size))


@dataclass(frozen=True)
class Opened:
    """An image file, read whole.

    Attributes:
        image: Its picture, the first one where there are several.
        format: Pillow's name of the format that the content has, whatever the file's name says.
        deep: Whether it has more than 8 bits a channel; Pillow reads some of those as 8 bits without a word.
        pictures: How many pictures it holds.
    """

    image: Image.Image
    format: str
    deep: bool
    pictures: int


def opened(path: Path, formats: tuple[str, ...] = ("PNG", "JPEG")) -> Opened:
    """A file as the image of one of ``formats`` that it is by its content.

    Raises:
        ValueError: If the file cannot be read.
    """
    if not path.is_file():  # opening a pipe would wait for who writes to it
        raise unusable(path, "not a file but a folder, a pipe or a link to nothing; copy it anew or remove it")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            start = file.read(26)
            file.seek(0)
            with Image.open(file, formats=formats) as image:
                found = Opened(image, image.format, _is_deep(image, start), getattr(image, "n_frames", 1))
                image.load()
                return found
    except Image.UnidentifiedImageError:
        raise unusable(path, f"not a {' or '.join(formats)} image; remove it or convert it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise unusable(path, f"more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller or remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise unusable(path, f"a damaged image ({error}); copy it anew or remove it") from None


def _is_deep(image: Image.Image, start: bytes) -> bool:
    """Tell whether a channel has more than 8 bits, from the header of the format; ``start`` is the file's."""
    if image.format == "PNG":
        return start[24:25] == b"\x10"
    if image.format == "TIFF":
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    if image.format == "PPM" and image.tile[0].codec_name.startswith("ppm"):
        return image.tile[0].args[1] > 255
    return False


def plain(path: Path, found: Opened) -> Image.Image:
    """The image of a file in mode L or RGB, with the same pixels.

    Raises:
        ValueError: If it has more than 8 bits a channel, other colours, or transparent pixels.
    """
    image = found.image
    if found.deep:
        raise unusable(path, "16 bits a channel; convert it to 8-bit grey or RGB")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise unusable(path, f"colours of mode {image.mode}; convert it to 8-bit grey or RGB")
    if "A" in image.mode or "transparency" in image.info:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        if lowest < 255:
            raise unusable(path, "transparent pixels; put it on a background and save it without alpha")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


@dataclass(frozen=True)
class AsStored:
    """Pixels of a file as they are, or scaled.

    Args:
        size: Height and width in pixels to scale to.
    """

    size: int | None = None

    def __call__(self, path: Path) -> np.ndarray:
        return decode(path, self.size)


def read_images(files: list[Path], read: Read) -> np.ndarray:
    """Pixels of all images, uint8 ``(N, C, H, W)``; in colour where one of them is.

    Raises:
        ValueError: If an image cannot be used, or differs in height or width from the first.
    """
    out = np.empty(0, np.uint8)
    for i, pixels in enumerate(_pixels(files, read)):
        if i == 0:
            out = np.empty((len(files), *pixels.shape), np.uint8)
        elif len(pixels) > out.shape[1]:
            out = np.repeat(out, len(pixels), axis=1)  # the first one in colour
        out[i] = pixels
    return out


def write_images(file: BinaryIO, files: list[Path], read: Read, channels: int = 1) -> None:
    """Write what ``read_images`` returns as a ``.npy``, with one image in memory at a time."""
    for i, pixels in enumerate(_pixels(files, read)):
        if i == 0:
            channels = max(channels, len(pixels))
            shape = (len(files), channels, *pixels.shape[1:])
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        elif len(pixels) > channels:  # the first one in colour
            file.seek(0)
            file.truncate()
            return write_images(file, files, read, len(pixels))
        file.write(np.broadcast_to(pixels, shape[1:]).tobytes())


def _pixels(files: list[Path], read: Read) -> Iterator[np.ndarray]:
    """Pixels of one image after the other, ``(C, H, W)``, all of the height and width of the first."""
    first = None
    for file in _shown(files):
        image = read(file)
        pixels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        first = first or pixels.shape[1:]
        if pixels.shape[1:] != first:
            (h, w), (h0, w0) = pixels.shape[1:], first
            raise unusable(file, f"{h} x {w} pixels, but {h0} x {w0} in {files[0]}; give resize to scale all")
        yield pixels


def _shown(files: list[Path]) -> Iterable[Path]:
    """The files, with their progress on a terminal."""
    if not sys.stderr.isatty():
        return files
    from rich.console import Console
    from rich.progress import track

    return track(files, description="reading images", console=Console(stderr=True))


def kept_images(files: list[Path], below: Path, cache: Path, read: Read) -> np.ndarray:
    """``read_images``, read from ``cache`` where the files are those of an earlier time by all but their content.

    That is name, size, date, the system's number and its time of change: archives and images of containers give all
    their files one date, and pictures of one compression often have one size.

    Args:
        files: Images below the folder ``below``.
        below: What their names are relative to.
        cache: Folder of the arrays; may be deleted at any time. Where it cannot be written, nothing is kept, and all
            pixels are in memory; otherwise the system brings those that are used, and takes them away.
        read: How to read a file.
    """
    stats = [(file, file.stat()) for file in files]
    state = [
        (str(file.relative_to(below)), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        for file, stat in stats
    ]
    key = hashlib.sha256(json.dumps([LAYOUT, PIL.__version__, repr(read), state]).encode()).hexdigest()
    kept = cache / f"{key}.npy"
    try:
        images = np.load(kept, mmap_mode="c", allow_pickle=False)
        if images.ndim == 4 and len(images) == len(files) and images.dtype == np.uint8:
            return images
    except (OSError, ValueError, EOFError):
        pass  # none yet, or damaged: made anew below
    try:
        _keep(kept, files, read)
        return np.load(kept, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        warnings.warn(f"{len(files)} images will be read again next time: {error}", stacklevel=2)
    return read_images(files, read)


def _keep(path: Path, files: list[Path], read: Read) -> None:
    """Write the pixels of all images so that ``path`` holds all of them or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write_images(file, files, read)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # empty where an image was refused
