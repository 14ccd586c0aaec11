"""Changes of grey levels: once when a data set is read, and at random in each training batch."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Shape = tuple[int, int, int]


def resized(image: Image.Image, size: int) -> Image.Image:
    """An image of ``size`` x ``size`` pixels, whatever its aspect: bilinear, averaging where it shrinks."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Preparation:
    """Stated changes of a data set's images, in this order; all as given where nothing is asked for.

    Args:
        resize: Height and width in pixels to scale to, bilinear.
        pad_to: Height and width in pixels to pad to with grey level 0, the image in the middle.
        rgb: Whether grey images become three equal channels; colour images stay as they are. Bits per dimension then
            count every pixel three times.
    """

    resize: int | None = None
    pad_to: int | None = None
    rgb: bool = False

    def shape(self, given: Shape) -> Shape:
        """Shape ``(C, H, W)`` of the images made from images of shape ``given``.

        Raises:
            ValueError: If ``pad_to`` is less than a side of the image.
        """
        channels, *sides = given
        if self.resize is not None:
            sides = [self.resize, self.resize]
        if self.pad_to is not None:
            if self.pad_to < max(sides):
                raise ValueError(f"pad_to must be at least the image's {max(sides)} pixels, got {self.pad_to}")
            sides = [self.pad_to, self.pad_to]
        return (3 if self.rgb else channels, *sides)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 ``(N, C, H, W)`` of the shape given to uint8 of the shape made."""
        channels, height, width = self.shape(images.shape[1:])
        if self.resize is not None and images.shape[2:] != (self.resize, self.resize):
            images = np.stack([_resized_array(image, self.resize) for image in images])
        down, right = height - images.shape[2], width - images.shape[3]
        if down or right:
            margins = [(0, 0), (0, 0), (down // 2, down - down // 2), (right // 2, right - right // 2)]
            images = np.pad(images, margins)
        return images if images.shape[1] == channels else np.repeat(images, channels, axis=1)


def _resized_array(image: np.ndarray, size: int) -> np.ndarray:
    """One image ``(C, H, W)``, each channel by itself."""
    return np.stack([np.asarray(resized(Image.fromarray(np.ascontiguousarray(level)), size)) for level in image])


@dataclass(frozen=True)
class Augmentation:
    """Random mirror images and shifts, one draw for each image, for the whole batch at once on the images' device.

    Args:
        flip: Mirror left and right with probability one half.
        crop_padding: Pixels by which an image is extended on each side by reflection, the edge not repeated, before it
            is cropped back to its size at a uniform position; 0 leaves it in place.
    """

    flip: bool = False
    crop_padding: int = 0

    def check(self, shape: Shape) -> None:
        """See whether images of ``shape`` can be reflected that far.

        Raises:
            ValueError: If ``crop_padding`` is not less than each side.
        """
        if not 0 <= self.crop_padding < min(shape[1:]):
            raise ValueError(f"crop_padding must lie in 0..{min(shape[1:]) - 1}, got {self.crop_padding}")

    def __call__(self, u: Tensor, rng: np.random.Generator) -> Tensor:
        """Grey levels ``(B, C, H, W)`` to grey levels of the same shape; ``rng`` draws on the CPU for any device."""
        if not (self.flip or self.crop_padding):
            return u
        images, channels, height, width = u.shape
        shift = rng.integers(-self.crop_padding, self.crop_padding, (2, images), endpoint=True)
        mirrored = torch.from_numpy(rng.random(images) < 0.5).to(u.device) if self.flip else None
        if not self.crop_padding:
            return torch.cat([u, u.flip(3)]).index_select(0, torch.arange(images, device=u.device) + images * mirrored)
        down, right = torch.from_numpy(shift).to(u.device)
        rows, columns = _reflected(down, height), _reflected(right, width)
        if mirrored is not None:
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        # By flat places: six times faster than by rows and columns.
        place = (width * rows[:, :, None] + columns[:, None]).flatten(1)[:, None].expand(-1, channels, -1)
        return u.flatten(2).gather(2, place).view(u.shape)


def _reflected(shift: Tensor, size: int) -> Tensor:
    """Positions ``0 .. size - 1`` moved by each shift and reflected at both ends, ``(B,) -> (B, size)``."""
    moved = (torch.arange(size, device=shift.device) + shift[:, None]).abs()
    return size - 1 - (size - 1 - moved).abs()
