"""Races: the same work by several sides in turn, equality checked on the first calls.

Time is CPU time of this process, or the wall's until a GPU has done the work.
"""

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.cost.meter import Meter
from benchmark.errors import tell
from benchmark.metrics.arrays import full_float32
from benchmark.speed.peers import Peers
from benchmark.speed.targets import TARGETS

LONG = 40.0
"""Seconds of a first round that is counted: a warm-up of shorter ones is not."""
MOST = 50.0
"""Seconds of a race after which no further round starts."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Side:
    """One side of a race.

    Attributes:
        run: The work.
        seen: What is compared, from what ``run`` returns; not timed.
        tolerance: Largest difference from the peer, relative in the Euclidean norm of all numbers.
    """

    run: Callable[[], Any]
    seen: Callable[[Any], Any] = lambda found: found
    tolerance: float = 0.0


@dataclass(frozen=True)
class Row:
    """A measured ratio.

    Attributes:
        target: Target and row.
        peer: Name of the peer.
        ratio: Theirs over ours, of medians; above 1 favours us.
        least: Smallest ratio of a round.
        goal: Least ratio to show; None if none is set.
        ours: Median of ours, in ``unit``.
        theirs: Median of theirs.
        unit: ``s`` of time, ``B`` of memory, ``operators`` or ``FLOP``.
        rounds: Timed rounds.
        error: Relative difference of results.
        more: Sizes of the work.
    """

    target: str
    peer: str
    ratio: float
    least: float
    goal: float | None
    ours: float
    theirs: float
    unit: str
    rounds: int
    error: float
    more: dict[str, Any]


class Bench:
    """Races of one run.

    Args:
        peers: Peers' code.
        rounds: Most timed rounds of a race.
        tiny: Whether work is of the smallest size, to see that it runs.
        on_row: Receives each row.
        device: Where the sides work.
        most: Seconds of a race after which no further round starts.

    Attributes:
        rows: All rows.
        unequal: Races whose sides gave different numbers, which are not timed.
    """

    def __init__(
        self,
        peers: Peers,
        rounds: int,
        tiny: bool,
        on_row: Callable[[Row], None],
        device: torch.device = CPU,
        most: float = MOST,
    ) -> None:
        self.peers, self.rounds, self.tiny, self.on_row = peers, rounds, tiny, on_row
        self.device, self.most = device, most
        self.rows: list[Row] = []
        self.unequal: list[str] = []

    def size(self, full: Any, tiny: Any) -> Any:
        """Full size of something, or its smallest."""
        return tiny if self.tiny else full

    def race(self, name: str, ours: Mapping[str, Side], theirs: Mapping[str, Side], **more: Any) -> None:
        """Race every side of ours against every peer's.

        Args:
            name: Target.
            ours: By row.
            theirs: By peer.
            more: Sizes, for the rows.
        """
        if not theirs:
            return
        sides = [*ours.values(), *theirs.values()]
        first, seen = [], []
        for side in sides:
            with full_float32():  # what a GPU computes by default would hide a difference
                seconds, found = timed(side.run, self.device)
            first.append(seconds)
            seen.append(flat(side.seen(found)))  # at once: two sides may leave their gradients in one network
            del found
        errors = {
            (row, peer): difference(seen[i], seen[len(ours) + j])
            for i, row in enumerate(ours)
            for j, peer in enumerate(theirs)
        }
        unequal = {pair: error for pair, error in errors.items() if not error <= ours[pair[0]].tolerance}
        for (row, peer), error in unequal.items():
            reason = f"our numbers and {peer}'s differ by {error:.2g}, allowed {ours[row].tolerance}"
            self.note_unequal(f"{name}/{row}", reason)
        if len(unequal) == len(errors):
            return
        del seen
        times = [first]
        spent = sum(times[0])
        if self.device.type == "cuda":  # a first call compiles, and loads kernels
            times, spent = [], 0.0
        elif spent < LONG:
            times = []
        while len(times) < self.rounds and (not times or spent < self.most):
            times.append([timed(side.run, self.device)[0] for side in sides])
            spent += sum(times[-1])
        for pair, error in errors.items():
            if pair not in unequal:
                i, j = list(ours).index(pair[0]), len(ours) + list(theirs).index(pair[1])
                self.add(name, *pair, np.array(times)[:, [i, j]], "s", error=error, **more)

    def note_unequal(self, row: str, reason: str) -> None:
        """Note that a row's sides do not do the same, so that it is not timed."""
        self.unequal.append(row)
        tell(f"error: {row}: {reason}")

    def compare_memory(self, name: str, row: str, peer: str, ours: Side, theirs: Side, **more: Any) -> None:
        """Compare by how much each side's call lets the memory of this process grow at its peak."""
        found = [[peak_bytes(side.run) for side in (ours, theirs)]]
        self.add(name, row, peer, np.array(found), "B", error=0.0, **more)

    def add(self, name: str, row: str, peer: str, found: np.ndarray, unit: str, error: float, **more: Any) -> None:
        """Add a row from what each round found, ``(rounds, 2)``."""
        medians, goals = np.median(found, 0), TARGETS[name].goals
        self.rows.append(
            Row(
                target=f"{name}/{row}",
                peer=peer,
                ratio=float(medians[1] / medians[0]),
                least=float((found[:, 1] / found[:, 0]).min()),
                goal=None if self.tiny else goals.get(f"{row}@{peer}", goals.get(row)),
                ours=float(medians[0]),
                theirs=float(medians[1]),
                unit=unit,
                rounds=len(found),
                error=error,
                more=more,
            )
        )
        self.on_row(self.rows[-1])


def timed(work: Callable[[], Any], device: torch.device = CPU) -> tuple[float, Any]:
    """Seconds of a call and its result: of this process on CPUs, by the wall clock until a GPU has done it."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, found


def peak_bytes(work: Callable[[], Any]) -> int:
    """Growth of resident memory at its peak during a second call of ``work``, at least one page (Linux with glibc)."""
    work()
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free, but kept, would not grow
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = int(status.read_text().split("VmRSS:")[1].split()[0])
    work()
    return 1024 * max(4, int(status.read_text().split("VmHWM:")[1].split()[0]) - before)


def metered(side: Side) -> Meter:
    """Counts of one call, after one that makes what is kept."""
    side.run()
    with Meter() as meter:
        side.run()
    return meter


def flat(values: Any) -> np.ndarray:
    """All numbers of tensors, arrays, lists or mappings in the order of their keys, in double."""
    if isinstance(values, Mapping):
        values = [values[key] for key in sorted(values)]
    if isinstance(values, list | tuple):
        return np.concatenate([flat(value) for value in values])
    if isinstance(values, Tensor):
        values = values.detach().double().contiguous().cpu().numpy()
    return np.asarray(values, np.float64).ravel()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """``|ours - theirs| / |theirs|``; infinite if they are not as many."""
    if len(ours) != len(theirs):
        return float("inf")
    scale = np.linalg.norm(theirs)
    gap = np.linalg.norm(ours - theirs)
    return float(gap / scale) if scale else float(gap)


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients of a module's weights by name."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
