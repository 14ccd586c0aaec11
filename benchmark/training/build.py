"""Methods and data built from a command line, with trained weights."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, innermost
from benchmark.suite import class_paths
from benchmark.suite.contents import contents
from benchmark.suite.settings import CONTENT
from benchmark.training.checkpoints import FINAL, with_weights
from benchmark.training.config_files import Settings, located
from datamodules.base import ImageData
from methods.base import Method


def run(arguments: Sequence[str], stop: Callable[[], bool], watchers: Sequence[Any] = ()) -> Any:
    """Parse ``arguments`` with a subcommand and run it, with further callbacks."""
    return _cli(arguments, stop, watchers=watchers)


def build(arguments: Sequence[str], stop: Callable[[], bool] = lambda: False, here: bool = True) -> Any:
    """A CLI with ``trainer``, ``model`` and ``datamodule`` built from ``arguments``, and nothing run.

    Args:
        arguments: Settings, without a subcommand.
        stop: See ``BenchmarkCLI``.
        here: Whether the trainer gets the devices of the settings; else one CPU, if only settings are needed.
    """
    return _cli(arguments, stop, run=False, here=here)


def _cli(arguments: Sequence[str], stop: Callable[[], bool], here: bool = True, **options: Any) -> Any:
    arguments = located(arguments)
    settings = Settings(arguments, here)  # refuses unreadable files before heavy imports
    from benchmark.training.lightning_cli import BenchmarkCLI

    class_paths.enforce()
    class_paths.import_named(settings.texts)
    return BenchmarkCLI(settings.explain, args=arguments, stop=stop, here=here, **options)


def method_of(arguments: Sequence[str], folder: Path) -> tuple[Method, ImageData]:
    """A cell's trained method, in evaluation mode on the trainer's device, and its data."""
    cli = build([*arguments, "--trainer.logger=false"])
    method = with_weights(cli.model, folder / "checkpoints" / FINAL)
    return method.to(cli.trainer.strategy.root_device), cli.datamodule


def resolve(cells: dict[str, tuple[str, ...]], dry: bool = False, here: bool = True) -> dict[str, dict[str, Any]]:
    """Resolve each cell's command line to a configuration with all defaults and the content of its data and files.

    Args:
        cells: Command line by name.
        dry: Whether nothing will be run: the files of data sets of known size may then be missing, and devices too;
            content is not noted.
        here: Whether this machine will run them; devices that it lacks may be another's.

    Raises:
        InputError: Naming the cell and what is wrong.
    """
    resolved: dict[str, dict[str, Any]] = {}
    known: dict[str, Any] = {}
    for name, arguments in cells.items():
        try:
            words = [*arguments, "--trainer.logger=false"]
            cli = _built_dry(words) if dry else build(words, here=here)
            # Parsed settings are valid: checking them again, and YAML, took longer than the dump itself.
            options = {"skip_link_targets": False, "skip_unset": False, "skip_validation": True, "format": "json"}
            config = json.loads(cli.parser.dump(cli.config, **options))
            if cli.trainer.fast_dev_run:
                raise InputError("trainer.fast_dev_run leaves no weights to measure; set trainer.max_steps instead")
            resolved[name] = config if dry else {**config, CONTENT: contents(config, cli.datamodule, known)}
        except (InputError, OSError, ValueError) as error:
            raise InputError(f"cell {name}: {innermost(error)}") from None
    return resolved


def _built_dry(arguments: list[str]) -> Any:
    """A CLI whose data stands in, and whose weights are not made where the method can do without."""
    from datamodules.base import stand_ins

    with stand_ins():
        try:
            with weightless():
                return build(arguments, here=False)
        except InputError:  # of the configuration, which then comes again, or of a method that computes with weights
            return build(arguments, here=False)


@contextmanager
def weightless() -> Iterator[None]:
    """Modules made in here have weights with a shape and no data, not initialised; for one thread at a time."""
    import torch
    from torch.nn import init

    names = [name for name in dir(init) if name.endswith("_") and not name.startswith("_")]
    before = {name: getattr(init, name) for name in names}
    try:
        for name in names:
            setattr(init, name, _as_it_is)
        with torch.device("meta"):
            yield
    finally:
        for name, own in before.items():
            setattr(init, name, own)


def _as_it_is(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor
