"""Mixed precision that clips gradients for fused optimisers too."""

from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer


class UnscaledMixedPrecision(MixedPrecision):
    """bfloat16 autocast, whose gradients are not scaled.

    The library refuses to clip gradients for a fused optimiser, which would undo their scaling itself, after the
    clipping. Where nothing is scaled there is nothing to undo.
    """

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        Precision.clip_gradients(self, optimizer, clip_val, gradient_clip_algorithm)
