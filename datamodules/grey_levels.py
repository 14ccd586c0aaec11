"""Between grey levels and the real images that models see: stated once for every data set."""

import math

import torch
from torch import Tensor


class GreyLevels:
    """Bins of [-r, r] for the grey levels ``0 .. count - 1`` of a pixel; ``r`` is 1 but in toys that reach further.

    Level ``u`` owns ``[r (2 u / count - 1), r (2 (u + 1) / count - 1))``. Dequantised, a pixel lies anywhere in its
    bin; for classification it lies at the centre.

    Continuous data come under it too, rounded to so many levels that the bins are finer than anything learned: 65,536
    of them are 2**-15 wide, and dequantising fills the bin again.

    Args:
        count: Number of grey levels, 2 to 65,536.
        reach: ``r``, above 0.
    """

    def __init__(self, count: int, reach: float = 1.0) -> None:
        if not 2 <= count <= 2**16:
            raise ValueError(f"grey levels must number 2 to {2**16}, got {count}")
        self.count, self.reach = count, reach
        self.dtype = torch.uint8 if count <= 256 else torch.int32

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2 * self.reach / self.count

    def centre(self, u: Tensor) -> Tensor:
        """Levels to float32 bin centres."""
        return self.dequantise(u, torch.tensor(0.5, device=u.device))

    def dequantise(self, u: Tensor, v: Tensor) -> Tensor:
        """``r (2 (u + v) / count - 1)`` with ``v`` uniform on [0, 1)."""
        return (u + v).mul_(self.width).sub_(self.reach)  # in place: memory is what this costs

    def quantise(self, x: Tensor) -> Tensor:
        """Real images to the level of their bin, as ``dtype``; values outside [-r, r] go to the edge levels."""
        return ((x + self.reach) * (self.count / (2 * self.reach))).floor().clamp(0, self.count - 1).to(self.dtype)

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """Bits per pixel from a log-density over [-r, r] in nats; uniform images give ``log2(count)``."""
        return -nats / (dims * math.log(2)) - math.log2(self.width)

    def lattice(self, u: Tensor) -> Tensor:
        """``r (2 u / (count - 1) - 1)``, points from -r to r: where the released code of (c) puts grey levels."""
        return u * (2 * self.reach / (self.count - 1)) - self.reach

    def lattice_bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """Bits per pixel from a log-density at points of the lattice, as if it were as large all around each.

        Nothing bounds them from below: a density may rise without limit at the points, which have no volume.
        """
        return -nats / (dims * math.log(2)) - math.log2(2 * self.reach / (self.count - 1))
