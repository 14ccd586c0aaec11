"""The learning-rate schedule of FixMatch."""

import math

from jsonargparse.typing import PositiveInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class PartCosine(LambdaLR):
    """``cos(7 pi step / (16 steps))``: down to a fifth.

    Source: Sohn et al. 2020 (FixMatch, arXiv:2001.07685), Sec. 2.4.

    Args:
        optimizer: Optimiser with the learning rate.
        steps: Optimiser steps of the run.
    """

    def __init__(self, optimizer: Optimizer, steps: PositiveInt) -> None:
        super().__init__(optimizer, lambda step: math.cos(7 * math.pi * step / (16 * steps)))
