"""A meter of FLOPs, operators and bytes, for calls on tensors without data."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made and storage._cdata not in self._given:
                self._given[storage._cdata] = storage
                self.resident += storage.nbytes()
        result = func(*args, **kwargs)
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


def _storages(values: Any) -> list[Any]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


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
