"""Ordinary differential equations of a batch, each image's solved in steps of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]
"""A state: tensors ``(B, ...)``, an image a row of each."""

Rates = Callable[[Parts, Tensor, Tensor], Parts]
"""Derivatives of the state, given the state, the places ``(B,)`` and which images of the batch they are, ``(B,)``."""

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The fifth-order solution minus the fourth-order one."""

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0
LEAST_WIDTH = 1e-9
"""Share of the whole way below which a step that still fails is given up."""


def dormand_prince(
    rates: Rates, state: Parts, start: float, end: float, rtol: float, atol: float
) -> tuple[Parts, Tensor]:
    """The state at ``end``, and the evaluations of ``rates`` that each image took, ``(B,)``.

    Explicit Runge-Kutta of order 5 with an error estimate of order 4. A step is kept where the root mean square of
    ``error / (atol + rtol |state|)`` is at most 1 in every part. Images do not wait for one another: each has its own
    steps, and leaves the batch when it has arrived, so that its solution does not depend on the others.

    Source: Dormand and Prince 1980; Hairer, Norsett and Wanner 1993, Solving Ordinary Differential Equations I, Sec.
    II.4, for the widths of steps.

    Raises:
        FloatingPointError: If no step, however small, is within the tolerance.
    """
    rows = torch.arange(len(state[0]), device=state[0].device)
    place = torch.full((len(rows),), start, dtype=torch.float64, device=rows.device)
    slope = rates(state, place, rows)
    width = _first_width(rates, state, slope, place, rows, rtol, atol).nan_to_num(end - start).clamp(max=end - start)
    arrived, evaluations = tuple(part.clone() for part in state), torch.full_like(rows, 2)
    while len(rows):
        last = width >= end - place
        width = torch.where(last, end - place, width)
        slopes = [slope]
        for node, weights in zip(NODES, WEIGHTS, strict=True):
            moved = _moved(state, width, weights, slopes)
            slopes.append(rates(moved, place + node * width, rows))
        evaluations[rows] += len(NODES)
        nothing = tuple(torch.zeros_like(part) for part in state)
        error = _moved(nothing, width, ERROR, slopes)
        ratio = _norm(error, state, moved, rtol, atol).nan_to_num(torch.inf)
        kept = ratio <= 1
        if bool((~kept & (width < LEAST_WIDTH * (end - start))).any()):
            raise FloatingPointError(f"no step is within rtol {rtol:g} and atol {atol:g}; try larger ones")
        state, slope = _chosen(kept, moved, state), _chosen(kept, slopes[-1], slope)
        place = torch.where(kept, place + width, place)
        width = width * (SAFETY * ratio ** (-1 / 5)).clamp(LEAST, MOST)
        done = kept & last
        if bool(done.any()):
            for whole, part in zip(arrived, state, strict=True):
                whole[rows[done]] = part[done]
            state, slope = _of(state, ~done), _of(slope, ~done)
            rows, place, width = rows[~done], place[~done], width[~done]
    return arrived, evaluations


def _first_width(
    rates: Rates, state: Parts, slope: Parts, place: Tensor, rows: Tensor, rtol: float, atol: float
) -> Tensor:
    """A first step by the sizes of state, slope and curvature, ``(B,)``."""
    size, speed = (_norm(part, state, state, rtol, atol) for part in (state, slope))
    short = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    ahead = rates(_moved(state, short, (1.0,), [slope]), place + short, rows)
    change = tuple(b - a for a, b in zip(slope, ahead, strict=True))
    bend = torch.maximum(speed, _norm(change, state, state, rtol, atol) / short)
    long = torch.where(bend <= 1e-15, (1e-3 * short).clamp(min=1e-6), (0.01 / bend) ** (1 / 5))
    return torch.minimum(100 * short, long)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.dim() - 1))


def _moved(state: Parts, width: Tensor, weights: tuple[float, ...], slopes: list[Parts]) -> Parts:
    """``state + width sum_i weights_i slopes_i``."""
    return tuple(
        part + _column(width.to(part.dtype), part) * sum(w * k for w, k in zip(weights, of_part, strict=True) if w)
        for part, *of_part in zip(state, *slopes, strict=True)
    )


def _norm(values: Parts, before: Parts, after: Parts, rtol: float, atol: float) -> Tensor:
    """Root mean square over an image of ``values`` in units of the tolerance, of the worst part, float64 ``(B,)``."""
    found = []
    for value, a, b in zip(values, before, after, strict=True):
        scaled = value / (atol + rtol * torch.maximum(a.abs(), b.abs()))
        found.append(scaled.view(len(value), -1).square().mean(1).sqrt().double())
    return torch.stack(found).amax(0)


def _chosen(kept: Tensor, new: Parts, old: Parts) -> Parts:
    return tuple(torch.where(_column(kept, a), a, b) for a, b in zip(new, old, strict=True))


def _of(state: Parts, rows: Tensor) -> Parts:
    return tuple(part[rows] for part in state)
