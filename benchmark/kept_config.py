"""The configuration that a training leaves beside its weights."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from benchmark.errors import InputError
from benchmark.files import write_text
from benchmark.yaml_files import parse_text, read_yaml

FILE = "config.yaml"
OF_THE_RESULT = ("seed_everything", "model", "data", "optimizer", "lr_scheduler", "ema")
"""What a training's weights follow from; how long and on what it runs may differ when it goes on."""


def check_same_training(folder: Path, text: str) -> None:
    """See that a folder holds no weights of another training, which would be lost or mixed up with those to come.

    Args:
        folder: Of the training.
        text: Its configuration as YAML with all defaults.

    Raises:
        InputError: Naming the first setting that differs.
    """
    path = folder / FILE
    if not path.is_file() or not any((folder / "checkpoints").glob("*.ckpt")):
        return
    before, now = read_yaml(path), parse_text(text, FILE)
    for key in OF_THE_RESULT:
        differing = _first_difference(before.get(key), now.get(key), key)
        if differing is not None:
            raise InputError(
                f"{folder} holds another training: {differing} in its {FILE}; "
                "choose another folder with --trainer.default_root_dir, or delete that one"
            )


class KeptConfig(Callback):
    """Writes a training's configuration to its folder; reading it again trains the same.

    This is done after the first step: settings that cannot be used leave nothing behind.

    Args:
        folder: Of the training.
        text: YAML with all defaults.
    """

    def __init__(self, folder: Path, text: str) -> None:
        self.folder, self.text = folder, text
        self._written = False

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not self._written:
            write_text(self.folder / FILE, self.text)
        self._written = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)


def _first_difference(before: Any, now: Any, key: str) -> str | None:
    """The first setting that differs, with both values; None if all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = (_first_difference(before.get(k), now.get(k), f"{key}.{k}") for k in {**before, **now})
        return next(filter(None, found), None)
    return None if before == now else f"{key} is {_short(before)}, not {_short(now)},"


def _short(value: Any) -> str:
    return "a group" if isinstance(value, dict) else "not given" if value is None else repr(value)[:60]
