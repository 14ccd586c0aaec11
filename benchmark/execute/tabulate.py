"""Tables and report of a run's finished jobs."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.errors import INCOMPLETE, OK, InputError, escaped, tell
from benchmark.results import answers_file, per_class
from benchmark.results.answers_file import Answers, Scored
from benchmark.results.definitions import HEADLINE_METRICS, generation_metrics, metrics_of
from benchmark.results.differences import seed_list
from benchmark.results.headline import to_screen
from benchmark.results.ledger import CLAIMS, PUBLISHED
from benchmark.results.per_class import FILE, Numbers
from benchmark.results.record import FAILED, Record, Results, failed
from benchmark.results.results_file import read_results
from benchmark.results.rows import Row, rows
from benchmark.results.tables import to_markdown, write_tables
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.source_code import code_digest
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Suite, words_of
from benchmark.system.files import digest, digest_file, read_json, write_text
from benchmark.system.machine import versions


def read_records(job: Job) -> list[Record]:
    """Records of an evaluation; empty if it is not finished."""
    if job.stage("metrics").completed(job.folder) is None:
        return []
    items = read_json(job.folder / "record.json")
    return [Record(**item) for item in items]


def outdated_rows(jobs: Sequence[Job], out: Path) -> list[Job]:
    """Evaluations whose rows the tables in ``out`` have, of other code, settings or data, and new ones would not."""
    try:
        before = read_results(out / "results.json").records
    except InputError:  # none, or one that nobody can read
        return []
    there = {(record.cell, record.seed) for record in before if record.status != FAILED}
    found = [job for job in jobs if job.part == "evaluate" and (job.cell.name, job.seed) in there]
    return [job for job in found if not read_records(job)]


def failed_records(job: Job, error: str) -> list[Record]:
    """Records of a failed evaluation: each metric that it would have measured, as a failure."""

    def at(metrics: Iterable[str], scale: float | None) -> list[Record]:
        protocol = {} if scale is None else {"guidance_scale": scale}
        return [failed(job.cell.name, job.method, job.seed, m, error, protocol=protocol) for m in metrics]

    networks = [stage.network for stage in job.stages if stage.kind == "features"]
    asked = [stage for stage in job.stages if stage.kind in QUESTIONS]
    answers = [at(metrics_of(stage.kind, expected=QUESTIONS[stage.kind].always), stage.scale) for stage in asked]
    samples = [at(generation_metrics(networks), scale) for scale in job.cell.guidance_scales or [None]]
    return [record for records in (*answers, *samples) for record in records]


def headline_numbers(job: Job) -> str:
    """A few numbers of a finished cell on one line."""
    parts = []
    for record in read_records(job):
        if record.metric in HEADLINE_METRICS and record.value is not None:
            scale = record.protocol.get("guidance_scale")
            parts.append(f"{record.metric}{'' if scale is None else f'@{scale:g}'} {record.value:.3f}")
    return "  ".join(parts)


WIDTH = 120
"""Characters of a line where standard output is no terminal."""
PARTIAL = "partial.md"
"""File with the tables of a stopped run."""
TEMPLATES = Path(answers_file.__file__).parent
"""Folder of the report's template and script."""
ROW_METRICS = ("accuracy/generated", "fd", "precision", "recall", "nn_ratio")
"""Metrics of given samples on the screen."""


def tabulate(
    suite: Suite,
    engine: Any,
    jobs: list[Job],
    results: dict[str, dict[str, Any]],
    out: Path,
    row: str | None = None,
    to: Path | None = None,
    metrics: Sequence[str] = HEADLINE_METRICS,
) -> int:
    """Write the tables of finished and failed jobs and print the main columns; returns the exit code.

    Args:
        suite: The suite.
        engine: Engine that carried out the jobs.
        jobs: Jobs of every cell and seed, also of those not selected.
        results: Results of the jobs of this run.
        out: Folder of the run.
        row: Row of given samples, to print beside the floors alone.
        to: Folder of the tables; that of the run by default.
        metrics: Columns to print.
    """
    to = to or out
    failures = {name: r["error"] for name, r in results.items() if r["status"] == "failed"}
    records: list[Record] = []
    shown: list[Job] = []
    for job in jobs:
        if job.part == "evaluate":
            error = failures.get(job.name)
            of_job = read_records(job) if error is None else failed_records(job, error)
            records += of_job
            shown += [job] if of_job else []
    cells = [name for name in suite.cells if any(job.cell.name == name for job in shown)]
    floors = _floors(suite)
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(engine), records=records)
    stage = Stage("tables", _key(table, shown, floors))
    left_out: list[Job] = []
    if stage.completed(to) is None:
        left_out = [job for job in outdated_rows(jobs, to) if job.name not in failures]
        if not stage.wrote(to, answers_file.FILE):  # its rows of equal keys would be kept
            (to / answers_file.FILE).unlink(missing_ok=True)
        stage.complete(to, lambda: _write(to, table, suite.protocol, shown, floors, out))
    (out / PARTIAL).unlink(missing_ok=True)
    _print(table, cells, floors, row, metrics)
    print(f"\n{_told_apart(shown, results)}")
    if left_out:
        cells = ", ".join(dict.fromkeys(job.cell.name for job in left_out))
        print(f"left out: {len(left_out)} row(s) of other code, settings or data, to be measured again: {cells}")
    print(f"tables:  {escaped(to / 'results.md')}")
    print(f"numbers: {escaped(to / 'results.json')}, {escaped(to / 'results.csv')}")
    print(f"report:  {escaped(to / 'report.html')}")
    for name, error in failures.items():
        tell(f"failed: {name}: {error} (log: {out / name.rsplit('/', 1)[0] / 'log'})")
    return INCOMPLETE if failures else OK


def _key(table: Results, shown: list[Job], floors: set[str]) -> str:
    """Hash of all that the tables, the scores of images and the page are made from."""
    made = {job.name: [stage.recorded(job.folder) for stage in job.stages] for job in shown}
    code = code_digest((__name__, "benchmark.results.page", "benchmark.execute.image_scores"))
    texts = [digest_file(path) for path in (*sorted(TEMPLATES.glob("report.*")), CLAIMS, PUBLISHED)]
    return digest([made, asdict(table), sorted(floors), code, texts])


def _write(
    out: Path, table: Results, protocol: Protocol, shown: list[Job], floors: set[str], run: Path
) -> dict[str, Any]:
    """Write all tables and the page of a run; returns the names of the files as ``outputs``."""
    from benchmark.results.page import write_report  # jinja2, not for `--help`

    cells = list(dict.fromkeys(job.cell.name for job in shown))
    failures = {(record.cell, record.seed) for record in table.records if record.status == FAILED}
    names = write_image_scores(out, protocol, [job for job in shown if (job.cell.name, job.seed) not in failures])
    answers = answers_file.answers_of(out / "results.json", table)
    names += write_tables(out, table, cells, floors, answers)
    names += write_per_class(out, shown, rows(table, cells))
    return {"outputs": [*names, write_report(out, cells, floors, run, words_of(table.suite)).name]}


def _print(table: Results, cells: list[str], floors: set[str], row: str | None, metrics: Sequence[str]) -> None:
    """Print the main columns of all cells, or of one row of samples beside the floors."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print()
    if row is None:
        console.print(to_screen(table, cells, floors, metrics))
        scales = any(record.protocol.get("guidance_scale") is not None for record in table.records)
        more = " Where a cell has several scales, @ is the largest." if scales else ""
        console.print(f"Means over seeds; all rows, columns and standard errors: see tables.{more}", style="dim")
    else:
        console.print(to_screen(table, [c for c in cells if c == row or c in floors], floors, ROW_METRICS))


def _told_apart(shown: list[Job], results: dict[str, dict[str, Any]]) -> str:
    """Number of evaluations in the tables, and those of this run if not all are."""
    now = [job for job in shown if job.name in results]
    parts = [f"{len(shown)} by cell and seed, {len(now)} carried out now"]
    if 0 < len(now) < len(shown):
        cells = dict.fromkeys(job.cell.name for job in now)
        parts.append(f"{', '.join(cells)} with {seed_list(job.seed for job in now)}")
    return "rows:    " + ": ".join(parts)


def tabulate_partly(suite: Suite, engine: Any, jobs: list[Job], out: Path) -> None:
    """Write the finished part of a stopped run; tables of an earlier complete run stay."""
    found = [(job, read_records(job)) for job in jobs if job.part == "evaluate"]
    records = [record for _, of_job in found for record in of_job]
    if not records:
        return
    cells = [name for name in suite.cells if any(job.cell.name == name for job, _ in found)]
    unfinished = [f"{job.cell.name} (seed {job.seed})" for job, of_job in found if not of_job]
    table = Results(suite=suite.name, commit=_commit(), environment=_environment(engine), records=records)
    write_text(out / PARTIAL, to_markdown(table, cells=cells, floors=_floors(suite), unfinished=unfinished))


def _floors(suite: Suite) -> set[str]:
    return {name for name, cell in suite.cells.items() if cell.floor}


def _commit() -> str:
    """The source's commit, marked if the working tree differs; empty outside a checkout."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of no other checkout

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, env=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails in the checkout of a surrounding project
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return ""


def _environment(engine: Any) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        **engine.hardware,
        **versions(("torch", "lightning", "torchmetrics", "torch-fidelity", "scikit-learn", "numpy")),
    }


def write_per_class(out: Path, jobs: Iterable[Job], all_rows: Sequence[Row]) -> list[str]:
    """Write ``per_class.csv`` and ``per_class.md`` of finished evaluations; returns these names.

    Args:
        out: Folder of the run.
        jobs: Jobs of the tables.
        all_rows: Rows of the tables, with failed, missing and inapplicable numbers.
    """
    numbers: Numbers = []
    for job in jobs:
        if job.part == "evaluate" and job.stage("metrics").completed(job.folder) is not None:
            numbers += read_json(job.folder / FILE)
    write_text(out / "per_class.csv", per_class.to_csv(numbers))
    write_text(out / "per_class.md", per_class.to_markdown(numbers, all_rows))
    return ["per_class.csv", "per_class.md"]


def write_image_scores(out: Path, protocol: Protocol, jobs: Iterable[Job]) -> list[str]:
    """Write ``answers.npz``, the scores of single test images of finished evaluations; returns its name.

    Known rows are kept. Without scores there is no file, and no name.

    Args:
        out: Folder of the run.
        protocol: Protocol of the measurements.
        jobs: Evaluations in the tables.
    """
    path, code = out / answers_file.FILE, code_digest(["benchmark.execute.image_scores"])
    try:
        known = Answers(path).rows if path.exists() else {}
    except InputError:
        known = {}
    found = []
    for job in jobs:
        at = job.cell.name, job.seed, digest([job.stage("metrics").key, code])
        if at not in known:
            from benchmark.execute.image_scores import image_scores  # loads torch

            known[at] = Scored(*at, image_scores(job, protocol))
        found.append(known[at])
    answers_file.write_answers(path, found)
    return [path.name] if path.exists() else []
