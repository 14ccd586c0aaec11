"""Precisions of training: which there are, and mixed precision that clips gradients for fused optimisers too."""

from lightning import Trainer
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from benchmark.errors import InputError


def check_precision(trainer: Trainer) -> None:
    """See that weights are kept in single or double precision.

    Raises:
        InputError: If they are kept in half precision, in which an average over steps stands still.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, HalfPrecision):
        raise InputError(
            f"trainer.precision {plugin.precision} keeps the weights themselves in half precision, in which their "
            "averages stand still; there are 32-true, bf16-mixed, 16-mixed and 64-true"
        )


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
