"""Errors in restoring a checkpoint, reported as errors of its file: its nested state may hold anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from benchmark.errors import InputError, one_line, out_of_memory, shown


class _Begun(Callback):
    """Records that a trainer has restored its checkpoint and begins."""

    begun = False

    def _begin(self, *_: Any) -> None:
        self.begun = True

    on_train_start = on_validation_start = on_test_start = on_predict_start = _begin


@contextmanager
def restoring(trainer: Trainer) -> Iterator[None]:
    """Refuse the trainer's checkpoint if the trainer fails before it begins.

    Raises:
        InputError: If it fails; names the checkpoint and the error.
    """
    note = _Begun()
    trainer.callbacks.append(note)
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if note.begun or trainer.ckpt_path is None or out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {shown(one_line(error), 150)}"
        raise InputError(
            f"{trainer.ckpt_path} cannot be restored ({why}); use an earlier one or train again"
        ) from error
