"""python -m benchmark.cost: measure the rates of this machine, and print an entry of benchmark/cost/rates.yaml.

The network is DDPM's UNet for CIFAR-10 at batch 16; operators are sums of a few numbers. The clock is the wall's on a
GPU, and that of this process on CPUs, where one thread works.
"""

import copy
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command

if TYPE_CHECKING:
    import torch

BATCH, OPERATORS, MOST_ROUNDS = 16, 2000, 1000


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.cost", description=__doc__)
    p.add_argument("--rounds", metavar="N", type=int, default=2, help="timed rounds of each kind of work (default 2)")
    p.add_argument("--width", metavar="N", type=int, default=128, help="channels of the network (default 128)")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Measure and print an entry; returns the exit code."""
    options = parser().parse_args(argv)
    if not 1 <= options.rounds <= MOST_ROUNDS:
        raise InputError(f"--rounds must be 1 to {MOST_ROUNDS}, got {options.rounds}")
    if not 4 <= options.width <= 1024 or options.width % 4:
        raise InputError(f"--width must be a multiple of 4 from 4 to 1024, got {options.width}")
    found = measured_rates(options.rounds, options.width)
    kind, device = found.pop("kind"), found.pop("device")
    numbers = ", ".join(f"{name}: {value:.1e}" for name, value in found.items())
    print(f'{kind}: {{device: "{device}", {numbers}, measured: true}}')
    return OK


def measured_rates(rounds: int, width: int) -> dict[str, Any]:
    """Kind and name of the device, FLOP/s of training and evaluation, and seconds for an operator."""
    import torch

    from benchmark.cost.meter import META, measured
    from benchmark.system.machine import processor
    from benchmark.training.build import build
    from datamodules.base import stand_ins

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)
    settings = ["--config=cifar10/ddpm.yaml", "--trainer.logger=false", f"--data.batch_size={BATCH}"]
    with stand_ins():
        method = build([*settings, f"--model.denoiser.init_args.network.init_args.width={width}"], here=False).model
    shape = (BATCH, 3, 32, 32)
    x, empty = torch.zeros(shape, device=META), copy.deepcopy(method).to(META)
    counts = {
        "train": measured(lambda: _step(empty, x)).flops,
        "evaluate": measured(lambda: _evaluation(empty, x)).flops,
    }
    method.to(device)
    x = torch.rand(shape, device=device) * 2 - 1

    def seconds(work: Callable[[], Any], precision: AbstractContextManager[Any] | None = None) -> float:
        with precision or nullcontext():
            return median(_timed(work, device) for _ in range(rounds + 1))  # the first warms up

    half = seconds(lambda: _step(method, x), torch.autocast(device.type, torch.bfloat16))
    return {
        "kind": "gpu" if gpu else "cpu",
        "device": torch.cuda.get_device_name() if gpu else f"{processor()['cpu']}, one thread",
        "train": counts["train"] / seconds(lambda: _step(method, x)),
        "train_half": counts["train"] / half,
        "evaluate": counts["evaluate"] / seconds(lambda: _evaluation(method, x)),
        "operator": seconds(lambda: _launches(device)) / OPERATORS,
    }


def _step(method: Any, x: "torch.Tensor") -> None:
    method.zero_grad()
    method.training_step({"labeled": (x, None)}, 0)["loss"].backward()


def _evaluation(method: Any, x: "torch.Tensor") -> None:
    import torch

    with torch.no_grad():
        method.denoiser.eps(x, x.new_full((len(x),), 0.5))


def _launches(device: "torch.device") -> None:
    import torch

    x = torch.zeros(8, device=device)
    for _ in range(OPERATORS):
        x = x + 1


def _timed(work: Callable[[], Any], device: "torch.device") -> float:
    """Seconds of a call: of this process on CPUs, by the wall clock until a GPU has done it."""
    import torch

    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    sys.exit(main())
