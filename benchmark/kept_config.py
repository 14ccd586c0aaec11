"""The configuration that a training leaves beside its weights."""

from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.files import write_text
from benchmark.yaml_files import parse_text, read_yaml

FILE = "config.yaml"
OF_THE_RESULT = ("seed_everything", "model", "data", "optimizer", "lr_scheduler", "ema")
"""What a training's weights follow from; how long and on what it runs may differ when it goes on."""


def keep_config(folder: Path, text: str) -> None:
    """Write a training's configuration to its folder; reading it again trains the same.

    Args:
        folder: Of the training.
        text: YAML with all defaults.

    Raises:
        InputError: If the folder holds that of another training, whose weights would be lost or mixed up with these.
    """
    path = folder / FILE
    if path.is_file():
        before, now = read_yaml(path), parse_text(text, FILE)
        for key in OF_THE_RESULT:
            differing = _first_difference(before.get(key), now.get(key), key)
            if differing is not None:
                raise InputError(
                    f"{folder} holds another training: {differing} in its {FILE}; "
                    "choose another folder with --trainer.default_root_dir, or delete that one"
                )
    write_text(path, text)


def _first_difference(before: Any, now: Any, key: str) -> str | None:
    """The first setting that differs, with both values; None if all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = (_first_difference(before.get(k), now.get(k), f"{key}.{k}") for k in {**before, **now})
        return next(filter(None, found), None)
    return None if before == now else f"{key} is {_short(before)}, not {_short(now)},"


def _short(value: Any) -> str:
    return "a group" if isinstance(value, dict) else "not given" if value is None else repr(value)[:60]
