"""python -m benchmark.speed.gpu: measure training, sampling and metrics on one GPU, then train Fashion-MNIST.

Every item has a share of the minutes and a process of its own; one that fails or is slow costs the others nothing. The
file of results is written after each row, so that a run which is ended keeps what it has.
"""

import re
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark.arguments import Parser
from benchmark.errors import INCOMPLETE, OK, InputError, command, shown
from benchmark.speed.gpu_items import ITEMS, Task
from benchmark.speed.targets import PACKAGES, checkouts
from benchmark.system.files import write_json
from benchmark.system.machine import processor, versions
from benchmark.system.surroundings import absolute, data_folders, path_option

LEAST_MINUTES, MOST_MINUTES = 0.1, 600.0
LAYOUT = "{:<48} {:>10} {:<14} {:>7} {:>8} {:>8}"


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.speed.gpu", description=__doc__)
    p.add_argument("--minutes", metavar="N", type=float, default=12.0, help="minutes for all items (default 12)")
    p.add_argument(
        "--json", metavar="FILE", type=path_option,
        help="file of results (default results/speed-<device>.json here; none in a rehearsal)",
    )  # fmt: skip
    p.add_argument("--tiny", action="store_true", help="rehearse every item on the CPU with the smallest sizes")
    p.add_argument(
        "--peer", metavar="NAME=DIR", action="append", default=[],
        help="checkout of released code: score_sde (score_sde_pytorch)",
    )  # fmt: skip
    for option, what in (
        ("--data-root", "the data sets (default $DIFFCLASS_DATA, else data)"),
        ("--weights", "feature networks' weights (default $DIFFCLASS_WEIGHTS)"),
    ):
        p.add_argument(option, metavar="DIR", type=path_option, help=f"folder of {what}")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Measure all items; returns the exit code."""
    options = parser().parse_args(argv)
    if not LEAST_MINUTES <= options.minutes <= MOST_MINUTES:
        raise InputError(f"--minutes must be {LEAST_MINUTES:g} to {MOST_MINUTES:g}, got {options.minutes:g}")
    if options.json is not None and not options.json.parent.is_dir():
        raise InputError(f"--json: there is no folder {options.json.parent}")
    folders, released = data_folders(options), checkouts(options.peer)
    device = _device(options.tiny)
    path = options.json
    if path is None and not options.tiny:
        path = absolute("results") / f"speed-{re.sub('[^a-z0-9]+', '-', device['name'].lower()).strip('-')}.json"
    report = Report(path, device, options)
    _measure(report, released, folders, options)
    failed = [name for name, end in report.items.items() if end["status"] in ("failed", "cut")]
    return INCOMPLETE if failed else OK


def _device(tiny: bool) -> dict[str, Any]:
    """Name and properties of the device.

    Raises:
        InputError: If there is no GPU, and this is no rehearsal.
    """
    import torch

    if tiny:
        return {"name": "cpu"}
    if not torch.cuda.is_available():
        raise InputError("torch finds no GPU here; --tiny rehearses all items on the CPU")
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "bytes": found.total_memory, "processors": found.multi_processor_count}


class Report:
    """Rows and ends of items, in a file that is written whole after each.

    Args:
        path: The file; None writes none.
        device: Name and properties of the device.
        options: Options of the command.

    Attributes:
        rows: Rows in their order.
        items: How each item ended.
    """

    def __init__(self, path: Path | None, device: dict[str, Any], options: Any) -> None:
        self.path, self.rows, self.items = path, list[dict[str, Any]](), dict[str, dict[str, Any]]()
        self._run = {
            "device": device,
            "tiny": options.tiny,
            "minutes": options.minutes,
            "machine": processor(),
            "versions": versions(PACKAGES),
        }
        print(LAYOUT.format("item", "value", "unit", "% peak", "must", "hoped").rstrip(), flush=True)

    @property
    def peak(self) -> float | None:
        """FLOP/s of dense bf16 products, if they were measured."""
        found = (row["value"] for row in self.rows if (row["item"], row["row"]) == ("peak", "bf16"))
        return next(found, None)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.rows.append(row)
        numbers = (("percent_of_peak", "{:.1f}"), ("must", "{:g}"), ("hoped", "{:g}"))
        cells = ("" if row[key] is None else form.format(row[key]) for key, form in numbers)
        line = LAYOUT.format(f"{row['item']}/{row['row']}", f"{row['value']:.4g}", row["unit"], *cells)
        print(line.rstrip(), flush=True)
        self._write()

    def end(self, name: str, end: dict[str, Any]) -> None:
        """Note how an item ended."""
        self.items[name] = {"what": ITEMS[name].what, **end}
        if end["status"] != "done":
            print(shown(f"{name}: {end['status']}: {end['reason']}"), flush=True)
        self._write()

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, {**self._run, "rows": self.rows, "items": self.items})


def _measure(report: Report, released: dict[str, Path], folders: dict[str, str], options: Any) -> None:
    """Measure the items one after the other, each in its share of the time that is left."""
    from benchmark.speed.gpu_process import carry_out, prepare

    end = time.perf_counter() + 60 * options.minutes
    prepare()
    with TemporaryDirectory(prefix="speed-") as shared:
        names = list(ITEMS)
        for i, name in enumerate(names):
            weights = [ITEMS[later].weight for later in names[i:]]
            seconds = max(0.0, end - time.perf_counter()) * weights[0] / sum(weights)
            task = Task(name, seconds, options.tiny, Path(shared), report.peak, released, folders)
            report.end(name, asdict(carry_out(task, report.add)))


if __name__ == "__main__":
    sys.exit(main())
