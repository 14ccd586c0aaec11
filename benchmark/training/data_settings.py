"""Settings of networks that come from the data set: ``data`` in a configuration, also by default.

A parameter of these names without a default gets the data set's value if none is given, for every class in a method's
configuration. One with a default keeps it, unless it is set to ``data``.
"""

from collections.abc import Callable
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from datamodules.base import ImageData

DATA = "data"
"""Placeholder of the data set's value in a configuration."""
FROM_DATA: dict[str, Callable[[ImageData], int | list[int]]] = {
    "classes": lambda data: int(data.classes),
    "in_channels": lambda data: int(data.shape[0]),
    "image_size": lambda data: int(data.shape[2]),
    "shape": lambda data: [int(side) for side in data.shape],
    "train_images": lambda data: len(data.images("train")[1]),
}
"""Parameters by name, and their values; classes are those of the task.

Numbers are plain: a parser's own types, of which a data set's side may be, cannot be written to a configuration.
"""


def open_to_data(parser: ArgumentParser) -> None:
    """Let arguments of a class be ``data``, the default of required ones."""
    for action in parser._actions:
        if action.dest not in FROM_DATA:
            continue
        action._typehint |= Literal[DATA]
        if action.required:
            action.required, action.default = False, DATA


def asks_data(config: Any) -> bool:
    """Tell whether a configuration has a setting from the data set."""
    return any(True for _ in _open(config))


def fill_from_data(config: Any, data: ImageData) -> None:
    """Replace placeholders in a configuration by the data set's values."""
    for arguments, name in list(_open(config)):
        arguments[name] = FROM_DATA[name](data)


def _open(config: Any) -> Any:
    """Yield arguments of a class and the name of a placeholder, for each one in a configuration."""
    if isinstance(config, list):
        for item in config:
            yield from _open(item)
    elif isinstance(config, Namespace | dict):
        for name, value in list(vars(config).items() if isinstance(config, Namespace) else config.items()):
            if name in FROM_DATA and value == DATA:
                yield config, name
            else:
                yield from _open(value)
