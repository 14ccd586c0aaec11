"""Between grey levels and the real images that models see: stated once for every data set."""

import math

import torch
from torch import Tensor


class GreyLevels:
    """Bins of [-1, 1] for the grey levels ``0 .. count - 1`` of a pixel.

    Level ``u`` owns ``[2 u / count - 1, 2 (u + 1) / count - 1)``. Dequantised, a pixel lies anywhere in its bin; for
    classification it lies at the centre.

    Continuous data come under it too, rounded to so many levels that the bins are finer than anything learned: 65,536
    of them are 2**-15 wide, and dequantising fills the bin again.

    Args:
        count: Number of grey levels, 2 to 65,536.
    """

    def __init__(self, count: int) -> None:
        if not 2 <= count <= 2**16:
            raise ValueError(f"grey levels must number 2 to {2**16}, got {count}")
        self.count = count
        self.dtype = torch.uint8 if count <= 256 else torch.int32

    def centre(self, u: Tensor) -> Tensor:
        """Levels to float32 bin centres in [-1, 1]."""
        return self.dequantise(u, torch.tensor(0.5, device=u.device))

    def dequantise(self, u: Tensor, v: Tensor) -> Tensor:
        """``2 (u + v) / count - 1`` with ``v`` uniform on [0, 1)."""
        return (u + v).mul_(2 / self.count).sub_(1)  # in place: memory is what this costs

    def quantise(self, x: Tensor) -> Tensor:
        """Real images to the level of their bin, as ``dtype``; values outside [-1, 1] go to the edge levels."""
        return ((x + 1) * (self.count / 2)).floor().clamp(0, self.count - 1).to(self.dtype)

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """Bits per pixel from a log-density over [-1, 1] in nats; uniform images give ``log2(count)``."""
        return -nats / (dims * math.log(2)) - math.log2(2 / self.count)

    def lattice(self, u: Tensor) -> Tensor:
        """``2 u / (count - 1) - 1``, points from -1 to 1: where the released code of (c) puts grey levels."""
        return u * (2 / (self.count - 1)) - 1

    def lattice_bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """Bits per pixel from a log-density at points of the lattice, as if it were as large all around each.

        Nothing bounds them from below: a density may rise without limit at the points, which have no volume.
        """
        return -nats / (dims * math.log(2)) - math.log2(2 / (self.count - 1))
