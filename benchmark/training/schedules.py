"""Learning-rate schedules, by optimiser step."""

import math

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to zero.

    Args:
        optimizer: Optimiser with the learning rate.
        steps: Optimiser steps of the run.
        warmup: Steps of the linear part.
    """

    def __init__(self, optimizer: Optimizer, steps: PositiveInt, warmup: NonNegativeInt = 0) -> None:
        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1, steps - warmup))
            return 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)


class Warmup(LambdaLR):
    """Linear warm-up, then constant.

    Args:
        optimizer: Optimiser with the learning rate.
        warmup: Steps of the linear part.
    """

    def __init__(self, optimizer: Optimizer, warmup: PositiveInt) -> None:
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / warmup))


class WarmupSteps(LambdaLR):
    """Linear warm-up, then a constant that is multiplied by a factor at intervals.

    Args:
        optimizer: Optimiser with the learning rate.
        warmup: Steps of the linear part.
        every: Steps between two multiplications, counted from the start.
        factor: Factor of the rate.
    """

    def __init__(
        self, optimizer: Optimizer, warmup: NonNegativeInt, every: PositiveInt, factor: PositiveFloat = 0.1
    ) -> None:
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)) * factor ** (step // every))
