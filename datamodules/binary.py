"""Binary tasks of which every label is known: what positive and unlabeled images are compared with."""

import numpy as np
from jsonargparse.typing import NonNegativeInt

from datamodules.splits import PositiveUnlabeled


class AllLabels(PositiveUnlabeled):
    """Some classes against the rest with all labels: the task of ``PositiveUnlabeled`` without its lack of labels.

    Args:
        positive: Classes of the data set that count as positive.
    """

    def __init__(self, positive: list[NonNegativeInt]) -> None:
        super().__init__(positive, count=1)

    def labeled(self, y: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(len(y))
