"""A meter of FLOPs, operators and bytes, for calls on tensors without data."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
"""Device of tensors with a shape and no data."""


class Meter(TorchDispatchMode):
    """Counter of the operators run inside it, their FLOPs by torch's formulas, and their bytes.

    Torch's ``FlopCounterMode`` refuses gradients with regard to an input, and counts no bytes.

    Attributes:
        flops: Of convolutions and matrix products, a multiply-add as two.
        operators: Number of operators, views left out.
        resident: Bytes of used tensors from outside, such as weights.
        peak: Most bytes of results at any one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.operators = self.resident = self.peak = 0
        self._live = 0
        self._made: set[int] = set()
        self._given: dict[int, Any] = {}  # the storage itself, whose number must not be used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _storages((args, kwargs))
        for storage in given:
            if storage._cdata not in self._made and storage._cdata not in self._given:
                self._given[storage._cdata] = storage
                self.resident += storage.nbytes()
        result = _without_data(func, args, kwargs, given)
        self.operators += not func.is_view
        formula = flop_registry.get(func._overloadpacket)
        self.flops += formula(*args, **kwargs, out_val=result) if formula else 0
        for storage in _storages(result):
            if storage._cdata not in self._made and storage._cdata not in self._given:
                self._made.add(storage._cdata)
                self._live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self._live)
        return result

    def _free(self, number: int, size: int) -> None:
        self._made.discard(number)
        self._live -= size


_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]
_LAYOUTS: dict[Any, tuple[bool, list[_Layout]]] = {}
"""Layouts of the results of calls, by operator and arguments: torch takes a millisecond to find those of one."""


def _without_data(func: Any, args: Any, kwargs: Any, given: list[Any]) -> Any:
    """Call an operator on tensors without data, whose storages are ``given``.

    A call like an earlier one gets new tensors of the same layouts.
    """
    if func.is_view or func._schema.is_mutable or any(storage.device != META for storage in given):
        return func(*args, **kwargs)
    key = (func, _described(args), _described(kwargs))
    if key not in _LAYOUTS:
        result = func(*args, **kwargs)
        several = isinstance(result, tuple)
        made = result if several else (result,)
        new = all(isinstance(value, Tensor) and value.device == META for value in made)
        if new and not {s._cdata for s in _storages(made)} & {s._cdata for s in given}:
            _LAYOUTS[key] = several, [(value.shape, value.stride(), value.dtype) for value in made]
        return result
    several, layouts = _LAYOUTS[key]
    made = tuple(torch.empty_strided(shape, stride, dtype=dtype, device=META) for shape, stride, dtype in layouts)
    return made if several else made[0]


def _described(value: Any) -> Any:
    """Key of an argument: of a tensor its layout, of other values themselves with their types."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    if isinstance(value, dict):
        return tuple((name, _described(item)) for name, item in value.items())
    return type(value), value


def _storages(values: Any) -> list[Any]:
    """Storages of the tensors among nested values; torch's ``tree_leaves`` takes five times as long."""
    if isinstance(values, Tensor):
        return [values.untyped_storage()]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [storage for value in values for storage in _storages(value)]


class Call(NamedTuple):
    """Cost of one call: FLOPs, operators, bytes of its inputs and peak bytes of its results."""

    flops: int
    operators: int
    resident: int
    peak: int


def measured(call: Callable[[], Any]) -> Call:
    """Run ``call`` on tensors without data and count its cost."""
    with META, Meter() as meter:  # also what the call makes, and weights that it reads
        call()
    return Call(meter.flops, meter.operators, meter.resident, meter.peak)
