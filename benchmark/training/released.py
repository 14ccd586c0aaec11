"""Trained methods of a run as files to give away: weights in safetensors, settings without folders of a machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import yaml
from safetensors.torch import save
from torch import Tensor

from benchmark.errors import InputError, escaped, shortened, tell
from benchmark.suite.stages import Stage
from benchmark.system.files import read_manifest, replacing, sweep, write_text
from benchmark.system.names import NAME
from benchmark.system.yaml_files import read_yaml
from benchmark.training import saved_config
from benchmark.training.checkpoints import FINAL, AtomicCheckpointIO, check_usable, state_of_checkpoint
from methods.weight_files import read_weights

PLACE = "{released}"
"""Stands in released settings for the folder that they are unpacked to."""
COMMENT = re.compile(rf"{re.escape(saved_config.DATA)}[0-9a-f]{{64}}|# lightning\.pytorch==[\w.]+")
"""Lines that released settings keep of the comments at their start."""


@dataclass(frozen=True)
class Released:
    """A trained method to give away or to unpack: its settings, as YAML, and its weights."""

    cell: str
    settings: str
    weights: dict[str, Tensor]


def pack(run: Path, out: Path, seed: int | None = None) -> list[Path]:
    """Write the trained methods of one seed of a run to a folder: ``CELL.safetensors`` and ``CELL.yaml``.

    Cells with a fixed seed count to every seed. A cell without a finished training of the seed, or with settings that
    name other folders, is left out with a note.

    Args:
        run: Folder of the run.
        out: Folder to write to, new or empty.
        seed: Of the methods; the smallest by default.

    Returns:
        The files of weights.

    Raises:
        InputError: If nothing can be released, weights are damaged, or the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists; name a new folder")
    chosen = _chosen(run, seed)
    places = {}
    for cell, folder in chosen.items():
        settings = read_yaml(folder / saved_config.FILE)
        trained_in = settings.get("trainer", {}).get("default_root_dir")
        places |= {str(place): f"{PLACE}/{cell}" for place in (trained_in, folder, folder.resolve()) if place}
    found = []
    for cell, folder in chosen.items():
        path = folder / saved_config.FILE
        try:
            settings = _mapped(read_yaml(path), lambda text: _portable(text, places))
        except InputError as error:
            tell(f"note: {cell} is left out: {error}")
            continue
        weights = folder / "checkpoints" / FINAL
        state = state_of_checkpoint(AtomicCheckpointIO().load_checkpoint(weights), weights)
        check_usable(state, weights)
        found.append(Released(cell, _comments(path) + _dumped(settings), state))
    if not found:
        raise InputError(f"no finished training of {run} can be released")
    out.mkdir(parents=True, exist_ok=True)
    for each in found:
        with replacing(out / f"{each.cell}.safetensors") as temporary:
            # safetensors' own writer makes files that others cannot read.
            temporary.write_bytes(save({name: value.contiguous().clone() for name, value in each.weights.items()}))
        write_text(out / f"{each.cell}.yaml", each.settings)
    return [out / f"{each.cell}.safetensors" for each in found]


def unpack(released: Path, out: Path) -> list[tuple[str, Path, int]]:
    """Write released methods as folders of trainings, which ``load`` and ``lightning`` take.

    Args:
        released: Folder that ``pack`` wrote.
        out: Folder for them.

    Returns:
        Of each its name, its folder, and the count of its weights.

    Raises:
        InputError: If nothing is released there, a file is damaged or missing, or a folder holds another training.
    """
    found = [_read(path, out) for path in sorted(released.glob("*.safetensors")) if NAME.fullmatch(path.stem)]
    if not found:
        raise InputError(f"no released weights in {released}")
    for each in found:
        _check_free(out / each.cell, each.settings)
    for each in found:
        checkpoints = out / each.cell / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        sweep(checkpoints)
        content = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": lightning.__version__}
        AtomicCheckpointIO().save_checkpoint({**content, "state_dict": each.weights}, checkpoints / FINAL)
        write_text(out / each.cell / saved_config.FILE, each.settings)
    return [(each.cell, out / each.cell, sum(value.numel() for value in each.weights.values())) for each in found]


def _chosen(run: Path, seed: int | None) -> dict[str, Path]:
    """Folder of the training of each cell that has ended."""
    if not run.is_dir():
        raise InputError(f"no folder {run}; name the folder that python -m benchmark.run wrote, e.g. runs/digits")
    cells: dict[str, dict[int, Path]] = {}
    for folder in sorted(run.glob("*/seed*")):
        if re.fullmatch(r"seed(0|[1-9]\d*)", folder.name) and NAME.fullmatch(folder.parent.name) and _ended(folder):
            cells.setdefault(folder.parent.name, {})[int(folder.name[4:])] = folder
    if not cells:
        raise InputError(f"no training of {run} has ended")
    wanted = min(min(seeds) for seeds in cells.values()) if seed is None else seed
    chosen = {cell: seeds.get(wanted) or _only(seeds) for cell, seeds in cells.items()}
    for cell in (cell for cell, folder in chosen.items() if folder is None):
        tell(f"note: {cell} is left out: it has no finished training of seed {wanted}")
    return {cell: folder for cell, folder in chosen.items() if folder is not None}


def _only(seeds: dict[int, Path]) -> Path | None:
    return next(iter(seeds.values())) if len(seeds) == 1 else None


def _ended(folder: Path) -> bool:
    """Tell whether a training has ended and its files are as it left them."""
    recorded = read_manifest(Stage("train").manifest(folder)) or {}
    return Stage("train", str(recorded.get("key"))).completed(folder) is not None


def _read(path: Path, out: Path) -> Released:
    """A released method, with the folder that it is unpacked to in its settings."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        raise InputError(f"no settings {beside} beside {path.name}; get them again")
    settings = _mapped(read_yaml(beside), lambda text: text.replace(PLACE, str(out)))
    try:
        weights = read_weights(path, "get it again")
    except (ValueError, OSError) as error:
        raise InputError(escaped(error)) from None
    text = saved_config.HEADER + _comments(beside) + _dumped(settings)
    check_usable(weights, path)
    return Released(path.stem, text, weights)


def _check_free(folder: Path, settings: str) -> None:
    """Refuse a folder that holds anything but the same method."""
    config, checkpoints = folder / saved_config.FILE, folder / "checkpoints"
    if not folder.exists():
        return
    same = config.is_file() and config.read_bytes() == settings.encode()
    if not folder.is_dir() or (not same and any(folder.iterdir())) or any(checkpoints.glob("step=*.ckpt")):
        raise InputError(f"{folder} holds something else; choose another folder with --out")


def _mapped(value: Any, change: Callable[[str], str | None]) -> Any:
    """Settings with all texts changed."""
    if isinstance(value, dict):
        return {name: None if name == "root" else _mapped(of, change) for name, of in value.items()}
    if isinstance(value, list):
        return [_mapped(of, change) for of in value]
    return change(value) if isinstance(value, str) else value


def _portable(text: str, places: dict[str, str]) -> str:
    """A setting whose path leads into the folder of a released training, from ``PLACE`` on.

    Raises:
        InputError: If it is another path, which other machines may lack.
    """
    for folder, place in places.items():
        if text == folder or text.startswith(f"{folder}/"):
            return place + text.removeprefix(folder)
    if Path(text).is_absolute() or text.startswith(("~", "../")):
        raise InputError(f"its settings name {shortened(text)}, which is not released")
    return text


def _comments(path: Path) -> str:
    """Keep those comments at the start of settings that say on which data and with which version they were trained."""
    lines = path.read_text(encoding="utf-8").splitlines()[:10]
    return "".join(f"{line}\n" for line in lines if COMMENT.fullmatch(line))


def _dumped(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
