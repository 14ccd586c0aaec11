"""Configuration that a training saves beside its weights."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from benchmark.errors import InputError
from benchmark.suite.settings import CONTENT, training_settings, without
from benchmark.system.files import write_text
from benchmark.system.yaml_files import parse_text, read_yaml

FILE = "config.yaml"
HEADER = "# All settings of the training in this folder.\n"
"""First line; distinguishes this file from a user's."""
DATA = "# sha256 of its training data: "
"""Start of the line with the digest of the training data."""
CHANGEABLE = (
    *(f"trainer.{name}" for name in ("max_steps", "max_epochs", "max_time", "min_steps", "min_epochs")),
    "lr_scheduler.init_args.steps",
    *(f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "accumulate_grad_batches")),
)
"""Settings that may change when a training is resumed: for longer, or on another machine."""


def write(folder: Path, settings: str) -> None:
    """Write a training's settings, YAML with every default, to its folder."""
    write_text(folder / FILE, HEADER + settings)


def check_same_training(folder: Path, settings: str, goes_on: bool) -> None:
    """Check that a folder holds no weights of another training, which would be lost or mixed up.

    Args:
        folder: Folder of the training.
        settings: YAML with every default.
        goes_on: Whether the training starts from a checkpoint.

    Raises:
        InputError: If it does; names the first setting that differs, or a file that would be lost.
    """
    path, instead = folder / FILE, "choose another folder with --trainer.default_root_dir"
    if not path.is_file():
        return
    trained = any((folder / "checkpoints").glob("*.ckpt"))
    if not path.read_bytes().startswith(HEADER.encode()):
        # Beside weights it may be the only record of their origin.
        rename = "" if trained else "rename it, or "
        raise InputError(f"{path} would be replaced by all settings of the training; {rename}{instead}")
    if not trained:
        return
    changeable = CHANGEABLE if goes_on else ()
    try:
        before = _compared(read_yaml(path), path.read_text(encoding="utf-8"), changeable)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path} is damaged; delete it if the weights beside it may be replaced, or {instead}"
        ) from None
    now = _compared(parse_text(settings, FILE), settings, changeable)
    if before[CONTENT] is None:  # of a version that did not write the digest
        now[CONTENT] = None
    differing = _first_difference(before, now)
    if differing is not None:
        raise InputError(f"{folder} holds another training: {differing} in its {FILE}; {instead}, or delete that one")


class KeptConfig(Callback):
    """Writes a training's settings to its folder after the first step, so that unusable ones leave no file.

    Args:
        folder: Folder of the training.
        settings: YAML with every default.

    Attributes:
        written: Whether they are written.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.written = False

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not self.written:
            write(self.folder, self.settings)
        self.written = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)  # if there were no steps


def _compared(settings: dict[str, Any], text: str, left_out: Iterable[str]) -> dict[str, Any]:
    """Settings that weights depend on, without some dotted names; ``text`` is the YAML of the settings."""
    data = re.search(f"^{DATA}([0-9a-f]{{64}})$", text, re.MULTILINE)
    return without({**training_settings(settings), CONTENT: data and f"data of sha256 {data[1]}"}, left_out)


def _first_difference(before: Any, now: Any, key: str = "") -> str | None:
    """First setting that differs, with both values; None if all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        dot = key and f"{key}."
        found = (_first_difference(before.get(k), now.get(k), f"{dot}{k}") for k in {**before, **now})
        return next(filter(None, found), None)
    return None if before == now else f"{key} is {_short(before)}, not {_short(now)},"


def _short(value: Any) -> str:
    """A value in a few characters; the name of a class."""
    value = value.get("class_path", value) if isinstance(value, dict) else value
    return repr(value)[:60]
