"""Trained methods of a run as files to give away: weights in safetensors, settings without folders of a machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from safetensors.torch import save

from benchmark.errors import InputError, escaped, shortened
from benchmark.suite.jobs import read_plan
from benchmark.system.files import replacing, write_text
from benchmark.system.names import NAME
from benchmark.system.yaml_files import read_yaml
from benchmark.training import saved_config
from benchmark.training.checkpoints import FINAL, AtomicCheckpointIO
from methods.weight_files import read_weights

PLACE = "{released}"
"""Stands in released settings for the folder that they are unpacked to."""
VERSION = "pytorch-lightning_version"


def pack(run: Path, out: Path) -> list[Path]:
    """Write the first seed of each trained cell of a run to a folder: ``CELL.safetensors`` and ``CELL.yaml``.

    Args:
        run: Folder of the run.
        out: Folder to write to.

    Returns:
        The files of weights.

    Raises:
        InputError: If the run or weights cannot be read, nothing is trained, or settings name other folders.
    """
    first: dict[str, Path] = {}
    for job in sorted(read_plan(run)[1], key=lambda job: job.seed):
        if job.part == "train" and (job.folder / "checkpoints" / FINAL).is_file():
            first.setdefault(job.cell.name, job.folder)
    if not first:
        raise InputError(f"no training of {run} has ended")
    places = {str(folder): f"{PLACE}/{cell}" for cell, folder in first.items()}
    written = []
    for cell, folder in first.items():
        settings = _mapped(read_yaml(folder / saved_config.FILE), lambda text: _portable(text, places))
        found = AtomicCheckpointIO().load_checkpoint(folder / "checkpoints" / FINAL)
        weights = {name: value.contiguous().clone() for name, value in found["state_dict"].items()}
        out.mkdir(parents=True, exist_ok=True)
        written.append(out / f"{cell}.safetensors")
        with replacing(written[-1]) as temporary:
            temporary.write_bytes(save(weights))  # its own writer makes the file unreadable to others
        write_text(out / f"{cell}.yaml", _comments(folder / saved_config.FILE) + _dumped(settings))
    return written


def unpack(released: Path, out: Path) -> Iterator[tuple[str, Path, int]]:
    """Write released methods as folders of trainings, which ``load`` and ``lightning`` take.

    Args:
        released: Folder that ``pack`` wrote.
        out: Folder for them; what it holds of the same names is replaced.

    Yields:
        Name of the cell, its folder, and the count of its weights.

    Raises:
        InputError: If nothing is released there, or a file is damaged.
    """
    files = sorted(path for path in released.glob("*.safetensors") if NAME.fullmatch(path.stem))
    if not files:
        raise InputError(f"no weights in {released}")
    for path in files:
        try:
            weights = read_weights(path, "get it again")
        except (ValueError, OSError) as error:
            raise InputError(escaped(error)) from None
        folder, settings = out / path.stem, path.with_suffix(".yaml")
        text = _comments(settings) + _dumped(_mapped(read_yaml(settings), lambda text: text.replace(PLACE, str(out))))
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        with replacing(folder / "checkpoints" / FINAL) as temporary:
            torch.save({"epoch": 0, "global_step": 0, VERSION: lightning.__version__, "state_dict": weights}, temporary)
        write_text(folder / saved_config.FILE, text)
        yield path.stem, folder, sum(value.numel() for value in weights.values())


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Settings with all texts changed."""
    if isinstance(value, dict):
        return {name: _mapped(of, change) for name, of in value.items()}
    if isinstance(value, list):
        return [_mapped(of, change) for of in value]
    return change(value) if isinstance(value, str) else value


def _portable(text: str, places: dict[str, str]) -> str:
    """A setting whose path leads into the folder of a released training, from ``PLACE`` on.

    Raises:
        InputError: If it is another absolute path, which other machines lack.
    """
    for folder, place in places.items():
        if text == folder or text.startswith(f"{folder}/"):
            return place + text.removeprefix(folder)
    if Path(text).is_absolute():
        raise InputError(f"settings name {shortened(text)}, which only this machine has; release a run without it")
    return text


def _comments(path: Path) -> str:
    """The comments at the start of a file of settings."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("#"))


def _dumped(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
