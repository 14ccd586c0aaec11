"""Settings of networks that the data set knows: written ``data`` in a configuration, and so by default where needed.

A parameter of these names that has no default of its own gets the data set's value where none is given, wherever its
class is named in a method's configuration. One that has a default keeps it, unless it is set to ``data``.
"""

from collections.abc import Callable
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from datamodules.base import ImageData

DATA = "data"
"""What stands in a configuration for the data set's value."""
FROM_DATA: dict[str, Callable[[ImageData], int]] = {
    "classes": lambda data: data.classes,
    "in_channels": lambda data: data.shape[0],
    "image_size": lambda data: data.shape[2],
}
"""Parameters by name, and their values; classes are those of the task."""


def open_to_data(parser: ArgumentParser) -> None:
    """Let the arguments of a class take ``data``, which those that are required have by default from now on."""
    for action in parser._actions:
        if action.dest not in FROM_DATA:
            continue
        action._typehint |= Literal[DATA]
        if action.required:
            action.required, action.default = False, DATA


def asks_data(config: Any) -> bool:
    """Whether a configuration holds a setting that is left to the data set."""
    return any(True for _ in _open(config))


def fill_from_data(config: Any, data: ImageData) -> None:
    """Put the data set's values where a configuration leaves them to it."""
    for arguments, name in list(_open(config)):
        arguments[name] = FROM_DATA[name](data)


def _open(config: Any) -> Any:
    """Arguments of a class, and the name of one that is left to the data set, for each of those in a configuration."""
    if isinstance(config, list):
        for item in config:
            yield from _open(item)
    elif isinstance(config, Namespace | dict):
        for name, value in list(vars(config).items() if isinstance(config, Namespace) else config.items()):
            if name in FROM_DATA and value == DATA:
                yield config, name
            else:
                yield from _open(value)
