"""python -m benchmark.readme: put the committed tables of results/ between the markers of README.md."""

import re
import sys
from pathlib import Path

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command
from benchmark.results.results_file import read_results
from benchmark.results.tables import to_markdown
from benchmark.suite.suite import load_suite
from benchmark.system.files import write_text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    *("accuracy/clean", "accuracy/middle", "nll", "nll/ode", "level_ce", "mse/denoise/t=0.2"),
    *("accuracy/generated", "fd", "fd/intra", "precision", "nn_ratio"),
)


def table(suite: str) -> str:
    """The main columns of a suite's committed results."""
    cells = load_suite(suite).cells
    floors = {name for name, cell in cells.items() if cell.floor}
    return to_markdown(read_results(ROOT / "results" / f"{suite}.json"), COLUMNS, cells=list(cells), floors=floors)


def with_tables(text: str) -> str:
    """``text`` with each ``<!-- table: SUITE -->`` block up to date."""
    block = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}\n{table(match[2])}\n{match[3]}", text)


@command
def main(argv: list[str] | None = None) -> int:
    """Rewrite README.md."""
    Parser(prog="python -m benchmark.readme", description=__doc__).parse_args(argv)
    readme = ROOT / "README.md"
    try:
        write_text(readme, with_tables(readme.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{readme}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    return OK


if __name__ == "__main__":
    sys.exit(main())
