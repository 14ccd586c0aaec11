"""A trained method, from the folder of its training."""

from pathlib import Path

from lightning.pytorch.utilities.seed import isolate_rng

from benchmark.errors import InputError
from benchmark.training import saved_config
from benchmark.training.build import build
from benchmark.training.checkpoints import FINAL, with_weights
from datamodules.base import ImageData
from methods.base import Method


def load(folder: str | Path) -> tuple[Method, ImageData]:
    """The method that was trained in a folder, in evaluation mode on the CPU, and its data.

    Args:
        folder: Folder of ``lightning fit``, or of a cell's seed in a suite's run, with ``config.yaml`` and weights.

    Raises:
        InputError: If a file is missing or damaged; names it.
    """
    folder = Path(folder)
    config, weights = folder / saved_config.FILE, folder / "checkpoints" / FINAL
    for file in (config, weights):
        if not file.is_file():
            raise InputError(f"no {file}; name the folder of a training that has ended")
    with isolate_rng():
        cli = build([f"--config={config}", "--trainer.logger=false"], here=False)
    return with_weights(cli.model, weights), cli.datamodule
