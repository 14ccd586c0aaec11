"""Measuring on one device: rates, shares of the peak, and how long the device waits."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import pairwise
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmark.cost.meter import META, measured
from benchmark.speed.gpu_items import ITEMS, Task
from benchmark.speed.peers import Peers
from benchmark.speed.race import Bench, Row
from benchmark.training.callbacks import CompiledNetworks
from methods.base import Method

WINDOW = 0.3
"""Least seconds between two looks at the clock, each of which waits for the device."""
LONGEST = 6.0
"""Most seconds in which a rate is measured, after the warm-up."""


class Card:
    """The device, the time that is left, and the rows of an item.

    Args:
        task: The item and its means.
        on_row: Receives each row.
    """

    def __init__(self, task: Task, on_row: Callable[[dict[str, Any]], None]) -> None:
        self.task, self.tiny, self._on_row = task, task.tiny, on_row
        self.item = ITEMS[task.name]
        self.device = torch.device("cpu" if task.tiny else "cuda")
        self._end = time.perf_counter() + task.seconds
        torch.manual_seed(0)
        if task.tiny:
            torch._dynamo.config.disable = True  # compilation takes its minutes on every machine

    def size(self, full: Any, tiny: Any) -> Any:
        """Full size of something, or its smallest."""
        return tiny if self.tiny else full

    def left(self) -> float:
        """Seconds until the process is ended."""
        return self._end - time.perf_counter()

    def now(self) -> float:
        """Seconds of the wall's clock, when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def half(self) -> AbstractContextManager[Any]:
        """Autocast to bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def row(self, name: str, value: float, unit: str, flops: float | None = None, **more: Any) -> None:
        """Send a row.

        Args:
            name: The row.
            value: What was measured.
            unit: Its unit.
            flops: FLOPs of one of the things that ``value`` counts a second, for the share of the peak.
            more: Sizes of the work, and further numbers.
        """
        goal = None if self.tiny else self.item.goals.get(name)
        met = None if goal is None else (value <= goal.must if self.item.below else value >= goal.must)
        share = None if flops is None or self.task.peak is None else 100 * value * flops / self.task.peak
        self._on_row({
            "item": self.task.name, "row": name, "value": value, "unit": unit, "percent_of_peak": share,
            "must": goal and goal.must, "hoped": goal and goal.hoped, "met": met, "more": more,
        })  # fmt: skip

    def rate(self, work: Callable[[], Any], count: int, warm: int = 3) -> float:
        """Things a second, ``count`` of them a call: the median of windows, after calls that warm up."""
        for _ in range(self.size(warm, 1)):
            work()
        rates, times = [], [self.now()]
        while not rates or (not self.tiny and times[-1] - times[0] < LONGEST and self.left() > 5):
            calls = 0
            while calls == 0 or (not self.tiny and time.perf_counter() - times[-1] < WINDOW):
                work()
                calls += 1
            times.append(self.now())
            rates.append(count * calls / (times[-1] - times[-2]))
        return median(rates)

    def bench(self) -> Bench:
        """Races on the device, whose rows are rows of this item."""
        peers = Peers(self.task.checkouts, extensions=self.device.type == "cuda")
        most = min(LONGEST, self.left() / 4)
        return Bench(peers, self.size(21, 1), self.tiny, self._ratio, self.device, most)

    def _ratio(self, row: Row) -> None:
        name = row.target.partition("/")[2]
        sizes = {"peer": row.peer, "ours": row.ours, "theirs": row.theirs, "least": row.least, "error": row.error}
        self.row(name, row.ratio, "times as fast", **sizes, **row.more)

    def compile(self, method: Method) -> None:
        """Compile a method's networks, as trainings do under ``compile: true``."""
        trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=self.device), is_global_zero=True)
        CompiledNetworks(method).setup(trainer, method, "fit")

    def profiled(self) -> profile:
        """A profiler of the device."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        return profile(activities=activities)

    def idle(self, profiled: profile) -> float:
        """Share of a profile's time in which the device did nothing."""
        kind = DeviceType.CUDA if self.device.type == "cuda" else DeviceType.CPU
        events = [e for e in profiled.events() if e.device_type == kind and not e.is_user_annotation]
        return idle_share((e.time_range.start, e.time_range.end) for e in events)


def idle_share(spans: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that no span covers, in [0, 1).

    Raises:
        ValueError: If there are no spans of any length.
    """
    merged: list[list[float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    if not merged or merged[-1][1] == merged[0][0]:
        raise ValueError("the profile shows no work of the device")
    gaps = sum(after[0] - before[1] for before, after in pairwise(merged))
    return gaps / (merged[-1][1] - merged[0][0])


def flops(empty: Method, shape: tuple[int, ...], train: bool) -> float:
    """FLOPs for one image of ``shape``, of a training step or of an evaluation; ``empty`` has weights without data."""
    x = torch.zeros(2, *shape, device=META)

    def step() -> None:
        empty.training_step({"labeled": (x, torch.zeros(2, dtype=torch.long, device=META))}, 0)["loss"].backward()

    @torch.no_grad()
    def evaluation() -> Tensor:
        return empty.denoiser.eps(x, x.new_full((2,), 0.5))

    return measured(step if train else evaluation).flops / 2


def peak(card: Card) -> None:
    """Dense products of square matrices, ``2 n^3`` FLOPs, and copies."""
    n = card.size(8192, 64)
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "highest"),
        ("tf32", torch.float32, "high"),
        ("fp32", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(n, n, device=card.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        found = card.rate(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2 * n**3)
        card.row(name, found, "FLOP/s", n=n)
    a = torch.zeros(card.size(2**30, 2**16), dtype=torch.uint8, device=card.device)
    b = torch.empty_like(a)
    card.row("copy", card.rate(lambda: b.copy_(a), 2 * len(a)), "B/s", bytes=len(a))
