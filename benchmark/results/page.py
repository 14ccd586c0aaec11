"""The HTML report of a run: one page, without a network, that answers first and shows all numbers after."""

import base64
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.errors import InputError
from benchmark.results.answers_file import Answers, answers_of
from benchmark.results.definitions import definition_of
from benchmark.results.headline import METRICS, bold_cells, chosen_lines, heading, labels_of, number
from benchmark.results.ledger import here, judge_all, margin, notes, statement, summary
from benchmark.results.page_figures import page_figures
from benchmark.results.page_pictures import confusions, curve, grids, without_pictures
from benchmark.results.published import printed_beside
from benchmark.results.record import FAILED, NOT_APPLICABLE, Results
from benchmark.results.record import OK as MEASURED
from benchmark.results.results_file import read_results
from benchmark.results.rows import Entry, Row, rows
from benchmark.results.split import all_tables
from benchmark.results.tables import by_reason, reasons_of, rows_of
from benchmark.system.files import write_text

SECONDS = "cpu_seconds/total"


def write_report(
    run: Path,
    cells: list[str] | None = None,
    floors: Collection[str] = frozenset(),
    cells_in: Path | None = None,
    again: str = "",
) -> Path:
    """Write the page of a run; returns its path.

    Args:
        run: Its folder.
        cells: Order of rows; by default that of the results.
        floors: Trivial cells for comparison, without some metrics.
        cells_in: Folder of the cells, if not ``run``.
        again: Options that ask a run for this suite.
    """
    results = read_results(run / "results.json")
    order = cells or list(dict.fromkeys(record.cell for record in results.records))
    answers = answers_of(run / "results.json", results)
    found = rows(results, order)
    template = Environment(
        loader=PackageLoader("benchmark.results", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html.j2")
    script = (files("benchmark.results") / "report.js").read_text(encoding="utf-8")
    page = template.render(
        results=results,
        headline=_headline(results, order, floors, answers),
        ledger=_ledger(run / "results.json", results, answers),
        floors=frozenset(floors),
        tables=[_table(*t, floors, printed_beside(results.suite)) for t in all_tables(found, _metrics(found))],
        curve=curve(results, order),
        figures=list(page_figures(cells_in or run, results, order)),
        grids=grids(cells_in or run, results, order),
        unseen=without_pictures(results, order),
        confusions=confusions(cells_in or run, results, order),
        again=_commands(results, order, again or f"--suite {results.suite}"),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    try:
        write_text(run / "report.html", page)
    except OSError as error:
        raise InputError(f"{run / 'report.html'}: cannot be written: {error.strerror}") from None
    return run / "report.html"


def _headline(results: Results, order: list[str], floors: Collection[str], answers: Answers | None) -> dict[str, Any]:
    """Head and body of the table of one row a method."""
    found = chosen_lines(results, order, floors)
    shown = [metric for metric in (*METRICS, SECONDS) if any(_told(line.entries.get(metric)) for line in found)]
    best = {metric: bold_cells(found, metric, floors, answers) for metric in shown if metric != SECONDS}
    body = []
    for line in found:
        scale = "" if line.guidance_scale is None else f"{line.guidance_scale:g}"
        cells = [
            (_seconds(entry) if metric == SECONDS else number(entry), _detail(entry), line.cell in best.get(metric, ()))
            for metric, entry in ((metric, line.entries.get(metric)) for metric in shown)
        ]
        body.append((line.cell, scale, labels_of(line), cells))
    head = ["CPU s ↓" if metric == SECONDS else heading(metric) for metric in shown]
    return {
        "head": head,
        "body": body,
        "scaled": any(scale for _, scale, _, _ in body),
        "labeled": any(labels for _, _, labels, _ in body),
    }


def _commands(results: Results, order: list[str], words: str) -> list[tuple[str, str]]:
    """Each cell with the command that runs it and what it needs; a cell whose seed is its own needs no seeds."""
    found = []
    seeds = Counter(seed for _, seed in {(record.cell, record.seed) for record in results.records})
    several = sorted(seed for seed in seeds if seeds[seed] > 1 or len(seeds) == 1)
    for cell in order:
        own = sorted({record.seed for record in results.records if record.cell == cell} & {*several}) or several
        found.append((cell, f"python -m benchmark.run {words} --only {cell} --seeds {','.join(map(str, own))}"))
    return found


def _seconds(entry: Entry | None) -> str:
    return number(entry) if entry is None or entry.status != MEASURED else f"{entry.mean:.0f}"


def _detail(entry: Entry | None) -> str:
    return "no such number" if entry is None else _entry(entry)[1]


def _ledger(path: Path, results: Results, answers: Answers | None) -> dict[str, Any] | None:
    """Claims of the papers that a run judges, in words; None if the suite has cells of no claim."""
    ledger = judge_all([(path, results, answers)])
    if not any(claim.pair(results.suite) for claim in ledger.claims):
        return None
    body = [
        {
            "says": statement(claim).partition("\n")[0],
            "paper": claim.paper,
            "here": f"{here(judged)}, margin {margin(judged)}",
            "n": len(judged.seeds),
            "verdict": judged.verdict,
        }
        for claim, (judged,) in ledger.rows()
    ]
    waiting = {reason: ", ".join(names) for reason, names in ledger.not_run().items()}
    return {"summary": summary(ledger.files[0]), "body": body, "waiting": waiting, "notes": notes(ledger)}


def _told(entry: Entry | None) -> bool:
    return entry is not None and entry.status != NOT_APPLICABLE


def _metrics(all_rows: list[Row]) -> set[str]:
    """Metrics with a number, failure or gap in any row, those of figures left out."""
    found = {metric for row in all_rows for metric in row.entries if _asked(row, metric)}
    return {metric for metric in found if not definition_of(metric).is_plotted}


def _table(
    heading: str,
    all_rows: list[Row],
    metrics: list[str],
    floors: Collection[str],
    published: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """Head and body of one table, and notes of failures and inapplicable cells."""
    chosen = rows_of(all_rows, metrics, floors)
    absent = {row.cell: reasons_of(row, metrics) for row in chosen}
    kept = [row for row in chosen if not reasons_of(row, metrics)]
    elsewhere = {(row.cell, metric) for row in kept for metric in row.entries}  # in another row of the cell
    head = [(metric, f"{definition_of(metric).arrow} {definition_of(metric).unit}".strip()) for metric in metrics]
    body, numbers = [], {}
    for row in kept:
        scale = "" if row.guidance_scale is None else f"{row.guidance_scale:g}"
        cells = []
        for metric in metrics:
            nothing = ("", "") if (row.cell, metric) in elsewhere else ("missing", "not finished")
            text, detail = _cell(row.entries.get(metric, ()), numbers) or nothing
            cells.append((f"{text} {row.paper(published, metric)}".strip(), detail))
        body.append((row.cell, scale, cells))
    failed: dict[str, dict[str, None]] = {}
    for row in kept:
        for entry in (entry for metric in metrics for entry in row.entries.get(metric, ()) if entry.status == FAILED):
            failed.setdefault(row.cell, {}).update(dict.fromkeys(entry.reasons))
    notes = [("failed", cell, "; ".join(reasons)) for cell, reasons in failed.items()]
    notes += [("n/a", f"[{number}]", reason) for reason, number in numbers.items()]
    notes += [("n/a throughout", ", ".join(cells), reason) for reason, cells in by_reason(absent).items()]
    return {"name": heading, "head": head, "body": body, "scaled": any(s for _, s, _ in body), "notes": notes}


def _asked(row: Row, metric: str) -> bool:
    return any(entry.status != NOT_APPLICABLE for entry in row.entries.get(metric, ()))


def _cell(entries: tuple[Entry, ...], numbers: dict[str, int]) -> tuple[str, str] | None:
    """Text and tooltip of a table cell; None without entries. Reasons for n/a get numbers, which are noted once."""
    found, texts = sorted(entries, key=lambda entry: entry.status != FAILED), []
    told = [entry.protocol for entry in found if entry.status == MEASURED]
    apart = {key for of in told for key in of if any(of[key] != other.get(key) for other in told)}
    for entry in found:
        text, _ = _entry(entry)
        if entry.status == NOT_APPLICABLE and entry.reasons:
            marks = ", ".join(str(numbers.setdefault(reason, len(numbers) + 1)) for reason in entry.reasons)
            text += f" [{marks}]"
        about = ", ".join(f"{key} {value}" for key, value in entry.protocol.items() if key in apart)
        texts.append(f"{text} ({about})" if about else text)
    return ("; ".join(texts), "; ".join(_entry(entry)[1] for entry in found)) if found else None


def _entry(entry: Entry) -> tuple[str, str]:
    if entry.status != MEASURED:
        return entry.status, "; ".join(entry.reasons)
    digits = definition_of(entry.metric).shown
    text = f"{entry.mean:{digits}}" + ("" if entry.stderr is None else f" ± {entry.stderr:{digits}}")
    details = {"n": ", ".join(map(str, entry.n)), "seeds": len(entry.seeds), **entry.protocol}
    return text, ", ".join(f"{key} {value}" for key, value in details.items())
