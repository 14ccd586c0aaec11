"""Images averaged over areas to fewer pixels, a stated change of a data set that results name."""

import numpy as np

AT_ONCE = 2000
"""Images averaged at once, which bounds the memory for sums."""


def averaged(images: np.ndarray, size: int) -> np.ndarray:
    """Means over equal areas: uint8 ``(N, C, H, W)`` to uint8 ``(N, C, size, size)``.

    A new pixel is the mean of the old image over its area, ``H / size`` by ``W / size`` old pixels; old pixels that
    lie across a border count by their exact share on either side. For sides that ``size`` divides these are means of
    blocks, 2x2 for 32 to 16; for 28 to 16, areas of 1.75 x 1.75. Sums are exact. Means are rounded to the nearest of
    256 grey levels, halves to the even one: a flat image stays as it is, and the mean of an image moves by rounding
    alone.
    """
    height, width = images.shape[2:]
    rows, columns = _shares(height, size), _shares(width, size)
    out = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), AT_ONCE):
        sums = rows @ images[start : start + AT_ONCE].astype(np.float64) @ columns.T
        out[start : start + AT_ONCE] = np.rint(sums / (height * width))
    return out


def _shares(old: int, new: int) -> np.ndarray:
    """Overlap of each new pixel with each old one, ``(new, old)``, in units of ``1 / new`` of an old pixel.

    Pixel ``i`` of the new ones covers ``[i old, (i + 1) old)`` of these units, pixel ``j`` of the old ones ``[j new,
    (j + 1) new)``; every row so adds up to ``old``.
    """
    i, j = np.arange(new)[:, None], np.arange(old)
    overlap = np.minimum((i + 1) * old, (j + 1) * new) - np.maximum(i * old, j * new)
    return overlap.clip(min=0).astype(np.float64)
