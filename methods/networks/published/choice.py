"""Weights by name out of a published file: the averaged ones where they lie beside the raw ones, without wrappers."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from methods.networks.published.ncsnpp import with_averages
from methods.weight_files import check_plain, read_weights, told

Weights = dict[str, Tensor]

RAW = ("model", "state_dict", "model_state_dict", "params", "net", "network", "weights", "online_model", "module")
"""Keys under which files keep weights as they were trained, and averages their own, the likeliest first."""
SHADOWS = ("shadow", "shadow_params")
"""Keys under which keepers of averages have them."""
AVERAGED = re.compile(r"(^|[_.-])ema(?=$|[_.\d-])|^shadow", re.IGNORECASE)
"""Pattern of the keys of averages: ``ema``, ``model_ema``, ``ema_state_dict``, ``ema_0.9999``."""
COUNTERS = {"n_averaged", "num_updates", "decay", "step", "initted"}
"""Names of the counters that are saved beside averages."""
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|module)\.")
"""Prefixes of names by ``torch.compile``, data-parallel wrappers and torch's averages."""


def published_weights(path: Path) -> Weights:
    """Weights by name in a file; says on standard error if they are averages.

    Raises:
        PermissionError: If the file may not be read.
        ValueError: Naming the file, if it cannot be read or holds no weights that can be used.
    """
    found = read_weights(path, "copy it anew, or save its weights as .safetensors")
    try:
        weights, averages = chosen(found)
        check_plain(weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if averages is not None:
        print(f"{path}: the averaged weights are taken, {averages}", file=sys.stderr, flush=True)
    return weights


def chosen(found: Any) -> tuple[Weights, str | None]:
    """Weights by name in what a file holds, and the place of the averages among them; None where there are none.

    Raises:
        ValueError: If there are none, several averages, or averages that are not understood.
    """
    if isinstance(found, list) and found:  # of DDIM's code: model, optimizer, epoch, step and the average
        found = {"model": found[0], "ema": found[-1]} if isinstance(found[-1], Mapping) else found[0]
    if not isinstance(found, Mapping):
        raise ValueError("holds no weights by name")
    found = _by_part(found)
    averages = {key: _averages(key, value) for key, value in found.items() if AVERAGED.search(str(key))}
    averages = {key: value for key, value in averages.items() if value}
    if len(averages) > 1:
        raise ValueError(f"holds several averages, {', '.join(map(told, averages))}; save the one to use alone")
    raw = next(filter(None, (_named(found.get(key)) for key in RAW)), None) or (None if averages else _named(found))
    if not averages:
        if raw is None:
            raise ValueError("holds no weights by name")
        return _unwrapped(raw), None
    ((key, average),) = averages.items()
    if isinstance(average, Mapping):
        return {**_unwrapped(raw or {}), **_unwrapped(average)}, told(key)
    if raw is None:
        raise ValueError(f"holds averages under {told(key)} without names, and no weights that have them")
    return with_averages(_unwrapped(raw), average), told(key)


def _by_part(found: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Weights whose names begin with ``ema_model.`` or the like, by these beginnings; all else as it is."""
    names = [name for name in found if isinstance(name, str) and isinstance(found[name], Tensor)]
    if not any("." in name and AVERAGED.search(name.partition(".")[0]) for name in names):
        return found
    parts: dict[str, Weights] = {}
    for name in names:
        part, _, rest = name.partition(".")
        if rest:
            parts.setdefault(part, {})[rest] = found[name]
    return parts


def _named(value: Any) -> Weights | None:
    """Weights by name, where a value is that; counters beside them are left out."""
    if not isinstance(value, Mapping):
        return None
    weights = {str(name): of for name, of in value.items() if isinstance(of, Tensor)}
    plain = all(isinstance(of, Tensor | int | float | str | None) for of in value.values())
    return weights if plain and weights else None


def _averages(key: str, value: Any) -> Weights | list[Tensor] | None:
    """Averages under a key, by name or in the order of the weights; None where it holds no tensors."""
    if isinstance(value, Mapping):
        value = _by_part(value)
        places = (*SHADOWS, *(part for part in value if AVERAGED.search(str(part))), *RAW)
        inner = next((value[part] for part in places if isinstance(value.get(part), Mapping | list | tuple)), value)
    else:
        inner = value
    if isinstance(inner, list | tuple) and inner and all(isinstance(average, Tensor) for average in inner):
        return list(inner)
    if found := _named(inner):
        return {name: average for name, average in found.items() if name not in COUNTERS}
    if _has_tensors(value):
        raise ValueError(f"holds averages under {told(key)} in a form that is not known")
    return None


def _has_tensors(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return depth > 0 and any(_has_tensors(part, depth - 1) for part in value)
    return isinstance(value, Tensor) and value.dim() > 0


def _unwrapped(weights: Weights) -> Weights:
    """Names without those of wrappers.

    Raises:
        ValueError: If two become one.
    """
    found = {WRAPPERS.sub("", name): value for name, value in weights.items()}
    if len(found) < len(weights):
        raise ValueError("holds weights both with and without the names of a wrapper")
    return found


def weights_of(network: nn.Module) -> Callable[[], None] | None:
    """Return the function that reads a network's published weights, a method's ``start``; None if it has none."""
    return network.start if getattr(network, "weights", None) else None
