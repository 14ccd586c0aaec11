"""Weak and strong augmentation of semi-supervised learning: each image by its own draw, in batches."""

import math
from collections.abc import Callable
from functools import partial

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as v2

Change = Callable[[Tensor, float], Tensor]


def _affine(
    v: Tensor, angle: float = 0.0, right: float = 0.0, down: float = 0.0, shear: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    """Images turned or sheared, in degrees, or moved by a share of their sides; 0 outside, bilinear."""
    move = [right * v.shape[3], down * v.shape[2]]
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.affine(v, angle, move, 1.0, list(shear), bilinear)


def _sheared(v: Tensor, rate: float, axis: int) -> Tensor:
    angle = math.degrees(math.atan(rate))
    return _affine(v, shear=(angle, 0.0) if axis == 0 else (0.0, angle))


CHANGES: dict[str, tuple[Change, float, float]] = {
    "autocontrast": (lambda v, m: v2.autocontrast(v), 0, 0),
    "brightness": (v2.adjust_brightness, 0.05, 0.95),
    "color": (v2.adjust_saturation, 0.05, 0.95),
    "contrast": (v2.adjust_contrast, 0.05, 0.95),
    "equalize": (lambda v, m: v2.equalize(v), 0, 0),
    "identity": (lambda v, m: v, 0, 0),
    "posterize": (lambda v, m: v2.posterize(v, round(m)), 4, 8),
    "rotate": (lambda v, m: _affine(v, angle=m), -30, 30),
    "sharpness": (v2.adjust_sharpness, 0.05, 0.95),
    "shear_x": (partial(_sheared, axis=0), -0.3, 0.3),
    "shear_y": (partial(_sheared, axis=1), -0.3, 0.3),
    "solarize": (v2.solarize, 0, 1),
    "translate_x": (lambda v, m: _affine(v, right=m), -0.3, 0.3),
    "translate_y": (lambda v, m: _affine(v, down=m), -0.3, 0.3),
}
"""Changes of images in [0, 1], with the range that their strength is drawn from: FixMatch, App. D."""


class Strong(nn.Module):
    """``count`` changes in a row, each drawn from ``CHANGES``, then a grey square of up to half the side.

    Every image draws its changes and its square. The images of a batch that draw the same change at the same place of
    the row have one strength, so that they are changed in one call; the published code draws one for each.

    Source: Sohn et al. 2020 (FixMatch, arXiv:2001.07685), Sec. 2.3 and App. D: RandAugment of random strength, then
    Cutout. The changes are torchvision's.

    Args:
        count: Changes of an image.
    """

    def __init__(self, count: NonNegativeInt = 2) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] to images of the same shape and range."""
        v = (x + 1) / 2
        for _ in range(self.count):
            drawn, strengths = _drawn(len(v), len(CHANGES))
            for k, (change, low, high) in enumerate(CHANGES.values()):
                rows = (drawn == k).nonzero().squeeze(1).to(v.device)
                if len(rows):
                    v = v.index_copy(0, rows, change(v[rows], low + (high - low) * strengths[k]).to(v.dtype))
        return 2 * v.masked_fill(random_squares(v), 0.5) - 1


def _drawn(images: int, changes: int) -> tuple[Tensor, list[float]]:
    """Number of a change for each image, ``(B,)``, and a strength in [0, 1) for each change."""
    return torch.randint(changes, (images,), device="cpu"), torch.rand(changes, device="cpu").tolist()


def random_squares(v: Tensor) -> Tensor:
    """Mask ``(B, 1, H, W)`` of squares whose side is 0 to half the image's, about any pixel, cut at the edges."""
    rows, columns = v.shape[2:]
    draws = torch.rand(3, len(v), 1, device="cpu")
    radius = draws[0] * min(rows, columns) / 4
    down = (torch.arange(rows, device="cpu") + 0.5 - draws[1] * rows).abs() <= radius
    right = (torch.arange(columns, device="cpu") + 0.5 - draws[2] * columns).abs() <= radius
    return (down[:, None, :, None] & right[:, None, None, :]).to(v.device)


class Weak(nn.Module):
    """Shift by whole pixels, uniform in both directions and reflected at the edges; and a mirror image, on request.

    Source: Sohn et al. 2020 (FixMatch, arXiv:2001.07685), Sec. 2.3: up to 1/8 of the side; digits are not mirrored.

    Args:
        pixels: Largest shift.
        flip: Mirror left and right with probability one half.
    """

    def __init__(self, pixels: PositiveInt = 4, flip: bool = False) -> None:
        super().__init__()
        self.pixels, self.flip = pixels, flip

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to images of the same shape and range."""
        height, width = x.shape[2:]
        down, right = torch.randint(-self.pixels, self.pixels + 1, (2, len(x), 1), device="cpu")
        rows, columns = (
            _reflected(torch.arange(n, device="cpu") + by, n) for n, by in ((height, down), (width, right))
        )
        if self.flip:
            columns = torch.where(torch.rand(len(x), 1, device="cpu") < 0.5, columns.flip(1), columns)
        place = (width * rows[:, :, None] + columns[:, None]).flatten(1)[:, None].to(x.device)
        return x.flatten(2).gather(2, place.expand(-1, x.shape[1], -1)).view(x.shape)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places brought into ``0 .. size - 1`` by reflection at the first and the last."""
    return size - 1 - (size - 1 - places.abs()).abs()
