"""The parser behind `lightning`."""

import difflib
import re
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from benchmark.errors import InputError
from benchmark.system.yaml_files import guarded
from benchmark.training.data_settings import open_to_data

set_loader("yaml", guarded(get_loader("yaml")), (yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Parser that takes whole option names only and raises errors instead of printing usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        added = super().add_class_arguments(*args, **kwargs)
        open_to_data(self)
        return added

    def error(self, message: str, ex: Exception | None = None) -> None:
        unknown = re.search(r"(?:option '|unrecognized arguments: --)([\w.+]+)", message, re.IGNORECASE)
        if unknown and "did you mean" not in message:
            parser = getattr(ex, "subcommand_parser", None) or self
            known = [action.dest for action in parser._actions]
            # An option of a class is an action of its own parser, without the prefix of its group.
            close = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.75)
            message += f"; did you mean {close[0]}" if close else ""
        if not self.exit_on_error:
            super().error(message, ex)
        raise InputError(_unmasked(message, ex))


def _unmasked(message: str, error: BaseException | None) -> str:
    """The message with the error inside an included file, which the parser reports as a loop."""
    while error is not None:
        if str(error).startswith("Config file loop detected") and error.__context__ is not None:
            message = message.replace(str(error), str(error.__context__))
        error = error.__cause__ or error.__context__
    return message
