"""python -m benchmark.runs list|merge|export|curves: the runs at hand, several as one, and results for other programs.

``list [DIR]`` shows the runs in a folder. ``merge RUN RUN ... --out DIR`` writes the tables of several runs of one
suite, such as other seeds or other machines. ``export RUN --format FORMAT`` writes results for a paper or a
spreadsheet. ``curves RUN`` writes what was measured on validation images during training, as CSV. A RUN is a folder
of a run or, except for curves, a results file.
"""

import sys
from pathlib import Path
from typing import Any

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command, escaped, shown, tell
from benchmark.results.answers_file import FILE, answers_of, merged_answers, write_answers
from benchmark.results.curves import to_csv as to_curves
from benchmark.results.export import to_latex, to_wide_csv
from benchmark.results.merge import merge
from benchmark.results.record import Results
from benchmark.results.results_file import read_results
from benchmark.results.tables import to_csv, to_markdown, write_tables
from benchmark.suite.suite import cells_and_floors
from benchmark.system.files import write_text
from benchmark.system.surroundings import path_option

FORMATS = ("long", "wide", "latex", "markdown")


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.runs", description=__doc__.partition("\n\n")[0])
    p.add_argument("action", choices=("list", "merge", "export", "curves"), help="what to do")
    p.add_argument("paths", metavar="RUN", nargs="*", type=path_option, help="folders of runs, or results files")
    p.add_argument(
        "--out", metavar="PATH", type=path_option, help="merge: a new folder; export, curves: a file, else the screen"
    )
    p.add_argument("--format", choices=FORMATS, default="long", help="export: long CSV (a record a line), wide CSV (a "
                   "row a line), a LaTeX table (booktabs) or Markdown (default long)")  # fmt: skip
    p.add_argument("--metrics", metavar="A,B", default="", help="export: these metrics alone, except in the long form")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Carry out the action; returns the exit code."""
    options = parser().parse_args(argv)
    return {"list": _list, "merge": _merge, "export": _export, "curves": _curves}[options.action](options)


def _list(options: Any) -> int:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from benchmark.status import look

    folder = _single(options, Path("runs").absolute())
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; name the one that holds runs")
    table = Table(
        Column("run", no_wrap=True), "suite", "jobs done", "seeds", "rows", "commit", box=None, pad_edge=False
    )
    for run in sorted({path.parent for name in ("plan.json", "results.json") for path in folder.glob(f"*/{name}")}):
        try:
            if not (run / "plan.json").is_file():  # merged, or samples that were judged
                table.add_row(run.name, shown(read_results(run / "results.json").suite), "", *_about(run))
                continue
            at = look(run)
            done = f"{sum(job.state == 'done' for job in at.jobs)}/{len(at.jobs)}"
            words = [run.name, at.suite, done, *_about(run)]
        except InputError as error:
            tell(f"note: {error}")
            words = [run.name, "cannot be read", "", "", "", ""]
        table.add_row(*(Text(shown(word)) for word in words))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(table if table.row_count else f"no run in {escaped(folder)}")
    return OK


def _about(run: Path) -> list[str]:
    """Seeds, rows and commit of what is tabulated of a run."""
    if not (run / "results.json").is_file():
        return ["", "", ""]
    results = read_results(run / "results.json")
    seeds = sorted({record.seed for record in results.records})
    return [",".join(map(str, seeds)), str(len({record.cell for record in results.records})), results.commit]


def _merge(options: Any) -> int:
    if len(options.paths) < 2 or options.out is None:
        raise InputError("merge needs at least two runs, and --out=DIR for the folder of their tables")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise InputError(f"{options.out} exists; name a new folder")
    files = [_results_file(path) for path in options.paths]
    merged = merge([(file, read_results(file)) for file in files])
    answers = merged_answers(files)
    cells, floors = _suite_of(merged)
    options.out.mkdir(parents=True, exist_ok=True)
    write_answers(options.out / FILE, answers)
    scores = answers_of(options.out / "results.json", merged)
    write_tables(options.out, merged, cells=cells, floors=floors, answers=scores)
    print(f"merged:  {len(files)} results, {len(merged.records)} records, in {escaped(options.out / 'results.json')}")
    return OK


def _export(options: Any) -> int:
    file = _results_file(_single(options))
    results = read_results(file)
    metrics = [name for name in options.metrics.split(",") if name]
    cells, floors = _suite_of(results)
    try:
        text = {
            "long": lambda: to_csv(results),
            "wide": lambda: to_wide_csv(results, metrics, cells),
            "latex": lambda: to_latex(results, metrics, cells, floors),
            "markdown": lambda: to_markdown(
                results, metrics or None, cells=cells, floors=floors, answers=answers_of(file, results)
            ),
        }[options.format]()
    except ValueError as error:
        raise InputError(f"--metrics: {error}") from None
    return _written(text, options.out)


def _curves(options: Any) -> int:
    run = _single(options)
    if not any(run.glob("*/seed*/tensorboard")):
        raise InputError(f"{run}: no TensorBoard logs of trainings; name the folder of a run that trained with them")
    text = to_curves(run)
    if text.count("\n") < 2:
        raise InputError(
            f"{run}: TensorBoard's logs hold no number on validation images; give trainings a validation part"
        )
    return _written(text, options.out)


def _written(text: str, out: Path | None) -> int:
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
    return OK


def _single(options: Any, default: Path | None = None) -> Path:
    if len(options.paths) > 1 or not (options.paths or default):
        raise InputError(f"{options.action} takes one RUN, got {len(options.paths)}")
    return options.paths[0] if options.paths else default


def _results_file(path: Path) -> Path:
    return path / "results.json" if path.is_dir() else path


def _suite_of(results: Results) -> tuple[list[str] | None, set[str]]:
    """Order of the cells, and floors, of the suite that results name, if it ships."""
    cells, floors = cells_and_floors(results.suite)
    return [name for name in cells if any(r.cell == name for r in results.records)] or None, floors


if __name__ == "__main__":
    sys.exit(main())
