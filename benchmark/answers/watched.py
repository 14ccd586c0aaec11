"""A denoiser that is watched while a sampler uses it."""

from collections.abc import Callable

from torch import Tensor

from methods.base import Denoiser

Seen = Callable[[int, Tensor, Tensor, Tensor], None]
"""Receives the number of a step, ``x_t``, ``t`` and the denoiser's estimate."""


class Watched(Denoiser):
    """Another denoiser, reporting the first evaluation at each level that a sampler visits.

    Args:
        denoiser: The denoiser.
        every: Evaluations of the sampler at a level.
        seen: Receives them.
    """

    def __init__(self, denoiser: Denoiser, every: int, seen: Seen) -> None:
        super().__init__()
        self.__dict__["inner"] = denoiser  # no weights of its own
        self.process, self.every, self.seen, self.calls = denoiser.process, every, seen, 0

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        estimate = self.__dict__["inner"](x_t, t, y)
        step, rest = divmod(self.calls, self.every)
        self.calls += 1
        if rest == 0:
            self.seen(step, x_t, t, estimate)
        return estimate
