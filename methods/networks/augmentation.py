"""Random changes of images that a classifier is trained on: the whole batch at once, each image by its own draw."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey image, ITU-R BT.601 as torchvision rounds them."""


class ClassifierAugmentation(nn.Module):
    """Augmentation of (e) for its classifier: one change after another, each with its own probability.

    Colour jitter of 0.1 in brightness, contrast, saturation and hue (1/4; images in colour alone), a crop of 1/2 to all
    of the area scaled back (1/4), rotation by up to 30 degrees, black outside (1/4), mirroring (1/2), contrast 0.6 to
    1.8 (1/4), sharpness 0.4 to 2 (1/4), brightness 0.6 to 1.8 (1/4). All draws are uniform, of torch's generator, which
    a run seeds by its step.

    Source: (e), official code, without its mix-up, which leaves labels unmixed. The changes are as torchvision defines
    them; the jitter's four come in one order, there in a random one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] to images of the same shape and range."""
        v = (x + 1) / 2
        if v.shape[1] == 3:
            jittered = self._chosen(v, 0.25)
            for change in (brightened, contrasted, saturated):
                v = torch.where(jittered, change(v, _uniform(v, 0.9, 1.1)), v)
            v = torch.where(jittered, hue_shifted(v, _uniform(v, -0.1, 0.1)), v)
        v = torch.where(self._chosen(v, 0.25), cropped(v, *random_boxes(v)), v)
        v = torch.where(self._chosen(v, 0.25), rotated(v, _uniform(v, -30, 30)), v)
        v = torch.where(self._chosen(v, 0.5), v.flip(3), v)
        for change, low, high in ((contrasted, 0.6, 1.8), (sharpened, 0.4, 2.0), (brightened, 0.6, 1.8)):
            v = torch.where(self._chosen(v, 0.25), change(v, _uniform(v, low, high)), v)
        return 2 * v - 1

    @staticmethod
    def _chosen(v: Tensor, share: float) -> Tensor:
        """Mask of the images that are changed, ``(B, 1, 1, 1)``."""
        return (_uniform(v, 0, 1) < share)[:, None, None, None]


def _uniform(v: Tensor, low: float, high: float) -> Tensor:
    """A number for each image, ``(B,)``."""
    return low + (high - low) * torch.rand(len(v), device=v.device)


def _blended(v: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """``factor v + (1 - factor) other``, kept in [0, 1]."""
    factor = factor[:, None, None, None]
    return (factor * v + (1 - factor) * other).clamp(0, 1)


def grey(v: Tensor) -> Tensor:
    """Brightness of each pixel, ``(B, 1, H, W)``."""
    return v if v.shape[1] == 1 else sum(w * v[:, k : k + 1] for k, w in enumerate(LUMA))


def brightened(v: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] times ``factor``, ``(B,)``."""
    return _blended(v, 0.0, factor)


def contrasted(v: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] away from their mean grey, or towards it for ``factor < 1``."""
    return _blended(v, grey(v).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturated(v: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] away from grey, or towards it for ``factor < 1``."""
    return _blended(v, grey(v), factor)


def sharpened(v: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] away from their smoothed selves, or towards them for ``factor < 1``; the edge stays.

    Smoothing weighs a pixel 5 and each of its eight neighbours 1.
    """
    inner = v[..., 1:-1, 1:-1]
    smooth = v.clone()
    smooth[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(v, 3, stride=1) + 4 * inner) / 13
    return _blended(v, smooth, factor)


def hue_shifted(v: Tensor, turns: Tensor) -> Tensor:
    """Colour images in [0, 1] with hues turned by so much of a full turn, ``(B,)``, at the same value and saturation.

    Source: the hexcone model, Smith 1978, "Color gamut transform pairs".
    """
    red, green, blue = v.unbind(1)
    top = v.amax(1)
    chroma = top - v.amin(1)
    span = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    sixths = torch.where(top == green, 2 + (blue - red) / span, 4 + (red - green) / span)
    sixths = torch.where(top == red, (green - blue) / span, sixths) + 6 * turns[:, None, None]
    k = (sixths[:, None] + torch.tensor([5.0, 3.0, 1.0], device=v.device)[:, None, None]) % 6
    return top[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def random_boxes(v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width in whole pixels, ``(B,)`` each, of 1/2 to all of the area and sides as 3/4 to 4/3.

    Ratios are uniform in their logarithm; a side longer than the image is cut.
    """
    rows, columns = v.shape[2:]
    area = _uniform(v, 0.5, 1) * rows * columns
    ratio = _uniform(v, math.log(3 / 4), math.log(4 / 3)).exp()
    height = (area / ratio).sqrt().round().clamp(max=rows)
    width = (area * ratio).sqrt().round().clamp(max=columns)
    top = (_uniform(v, 0, 1) * (rows - height + 1)).floor()
    left = (_uniform(v, 0, 1) * (columns - width + 1)).floor()
    return top, left, height, width


def cropped(v: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Boxes of the images, scaled back to their size, bilinear; a box is in pixels, ``(B,)`` each."""
    down = _inside(v.shape[2], top, height)[:, :, None].expand(-1, -1, v.shape[3])
    right = _inside(v.shape[3], left, width)[:, None].expand(-1, v.shape[2], -1)
    return F.grid_sample(v, torch.stack([right, down], dim=3), padding_mode="border", align_corners=False)


def _inside(size: int, start: Tensor, length: Tensor) -> Tensor:
    """Coordinates in [-1, 1] at which each of ``size`` pixels is read, ``(B, size)``, never beyond the box."""
    middles = (torch.arange(size, device=start.device) + 0.5) / size
    place = (middles * length[:, None] - 0.5).clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    return (2 * place + 1) / size - 1


def rotated(v: Tensor, degrees: Tensor) -> Tensor:
    """Images turned anticlockwise about their middle, ``(B,)``, bilinear, 0 outside."""
    angle = degrees * (math.pi / 180)
    rows, columns = v.shape[2:]
    down = (torch.arange(rows, device=v.device) + 0.5 - rows / 2)[:, None]
    right = (torch.arange(columns, device=v.device) + 0.5 - columns / 2)[None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    places = [(cos * right - sin * down) / (columns / 2), (sin * right + cos * down) / (rows / 2)]
    return F.grid_sample(v, torch.stack(places, dim=3), padding_mode="zeros", align_corners=False)
