"""The ledger of claims: each with a verdict for each results file, as text, Markdown and JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from math import exp
from pathlib import Path

from benchmark.errors import shown
from benchmark.results.answers_file import Answers, answers_of
from benchmark.results.claims import Claim, read_claims
from benchmark.results.definitions import definition_of
from benchmark.results.judgement import NOT_RUN, Judgement, judge
from benchmark.results.markdown import escape, table
from benchmark.results.paired import BETTER, FEWEST, LEVEL, VERDICTS
from benchmark.results.published import PUBLISHED, PublishedNumbers
from benchmark.results.record import Results
from benchmark.results.results_file import read_results

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ROOT / "configs" / "claims.yaml"
WIDTH = 100
"""Characters of a line of text."""
LARGEST = 700.0
"""Largest logarithm whose ratio is a number."""
ALONE = "*"
"""Mark of an interval over seeds alone."""


@dataclass(frozen=True)
class Judged:
    """One results file and its judgements, in the order of the claims."""

    path: Path
    suite: str
    commit: str
    answers: bool
    judgements: tuple[Judgement, ...]

    @property
    def label(self) -> str:
        """Name of the file, with its run's folder where all runs name it alike."""
        return f"{self.path.parent.name}/{self.path.name}" if self.path.name == "results.json" else self.path.name

    def count(self, verdict: str) -> int:
        """Number of claims with a verdict."""
        return sum(judgement.verdict == verdict for judgement in self.judgements)

    @property
    def judged(self) -> int:
        """Number of claims that were judged."""
        return len(self.judgements) - self.count(NOT_RUN)


@dataclass(frozen=True)
class Ledger:
    """Claims and what each results file says of them."""

    claims: tuple[Claim, ...]
    files: tuple[Judged, ...]

    def rows(self) -> Iterator[tuple[Claim, list[Judgement]]]:
        """Claims that at least one file judges, with the judgement of each file."""
        for index, claim in enumerate(self.claims):
            found = [file.judgements[index] for file in self.files]
            if any(judgement.verdict != NOT_RUN for judgement in found):
                yield claim, found

    def not_run(self) -> dict[str, list[str]]:
        """Claims by what judging them would take: those of a file's suite, and those of none of these suites."""
        found: dict[str, list[str]] = {}
        for index, claim in enumerate(self.claims):
            own = [file for file in self.files if claim.pair(file.suite) is not None]
            for file in own or self.files[:1]:
                judgement = file.judgements[index]
                if judgement.verdict == NOT_RUN:
                    told = f" ({file.label})" if own and len(self.files) > 1 else ""
                    found.setdefault(f"{judgement.reason}{told}", []).append(claim.name)
        return found


def judge_all(files: Sequence[tuple[Path, Results, Answers | None]], path: Path = CLAIMS) -> Ledger:
    """Hold all claims of a file against results that are read already."""
    claims = read_claims(path, PublishedNumbers(PUBLISHED))
    judged = [
        Judged(
            path, results.suite, results.commit, answers is not None,
            tuple(judge(claim, results, answers) for claim in claims),
        )
        for path, results, answers in files
    ]  # fmt: skip
    return Ledger(claims, tuple(judged))


def ledger_of(paths: Sequence[Path], claims: Path = CLAIMS) -> Ledger:
    """Hold the claims of a file against results files, with the scores of images beside them.

    Raises:
        InputError: If a file cannot be used.
    """
    files = []
    for path in paths:
        results = read_results(path)
        files.append((path, results, answers_of(path, results)))
    return judge_all(files, claims)


# One judgement in words


def statement(claim: Claim) -> str:
    """The claim in words, its source, whether it says that A and B are equal, and its name on a line of its own."""
    return f"{claim.says} {claim.source}{'' if claim.direction == BETTER else ' (equal)'}\n{claim.name}"


def _value(judgement: Judgement, value: float) -> str:
    return format(value, definition_of(judgement.metric.split(" v ")[0]).shown)


def _gain(judgement: Judgement, value: float, signed: bool = True) -> str:
    if judgement.ratio:
        times = exp(min(value, LARGEST))
        return f"x{times:.2f}" if times < 1000 else f"x{times:.3g}"
    return format(value, "+z.3f" if signed else ".3g")


def here(judgement: Judgement) -> str:
    """Metric, both means, and the gain with its interval."""
    if judgement.gain is None or judgement.a is None or judgement.b is None:
        return ""
    low, high = (_gain(judgement, end) for end in (judgement.low, judgement.high))
    alone = ALONE if judgement.images is None else ""
    return (
        f"{judgement.metric} {_value(judgement, judgement.a)} v {_value(judgement, judgement.b)}: "
        f"{_gain(judgement, judgement.gain)} [{low}, {high}]{alone}"
    )


def margin(judgement: Judgement) -> str:
    """The least gain that counts; empty where nothing was judged."""
    return "" if judgement.delta is None else _gain(judgement, judgement.delta, signed=False)


def _n(judgement: Judgement) -> str:
    return str(len(judgement.seeds)) if judgement.seeds else ""


# Notes


def summary(file: Judged) -> str:
    """Number of claims with each verdict, in words."""
    counts = ", ".join(f"{file.count(verdict)} {verdict}" for verdict in (*VERDICTS, NOT_RUN))
    commit = f", commit {file.commit}" if file.commit else ""
    return f"{file.label} (suite {file.suite}{commit}): {counts}"


def notes(ledger: Ledger) -> list[str]:
    """Explanations of the ledger, and of what its numbers leave out."""
    found = [
        "here: mean of A v mean of B over n seeds; then the gain of A on B, above 0 or x1 where A is better, with its "
        f"{2 * LEVEL - 1:.0%} t interval over paired seeds and test images. x marks ratios.",
        "verdict: of a claim that A is better, reproduced if the interval lies above 0 and the gain is at least the "
        "margin, contradicted if the opposite holds, absent if the interval lies within the margin, else inconclusive. "
        "Of a claim that A and B are equal: reproduced if the interval lies within the margin, contradicted if beyond.",
        "paper: measured on other data and mostly larger networks; results/published.yaml says what differs.",
    ]
    if any(j.verdict != NOT_RUN and j.images is None for _, row in ledger.rows() for j in row):
        found.append(
            f"{ALONE} interval over seeds alone, of this one set of test images: there are no scores of single images, "
            "as for distances of samples, Inception score, precision and recall."
        )
    for file in ledger.files:
        if not file.answers:
            found.append(
                f"{file.label}: no scores of single test images lie beside it, so that the error over test images "
                "(SE_test) is left out everywhere. Intervals are too narrow, the more so with more seeds."
            )
        if file.judged:
            found.append(
                f"{file.label}: of {file.judged} claims judged, up to about {(1 - LEVEL) * file.judged:.1f} would "
                f"read reproduced by chance if none were true: each is one-sided at {1 - LEVEL:.0%}."
            )
    return found


# Formats


def _header(ledger: Ledger) -> list[str]:
    if len(ledger.files) == 1:
        return ["claim", "paper", "here", "n", "margin", "verdict"]
    return ["claim", "paper", *(f"{file.label}: verdict" for file in ledger.files)]


def _cells(ledger: Ledger, claim: Claim, row: Sequence[Judgement]) -> list[str]:
    """Cells of a row; where files stand side by side, a verdict has its numbers on a second line."""
    first = [statement(claim), claim.paper]
    if len(ledger.files) == 1:
        return [*first, here(row[0]), _n(row[0]), margin(row[0]), row[0].verdict]
    return [*first, *(_aside(judgement) for judgement in row)]


def _aside(judgement: Judgement) -> str:
    if judgement.verdict == NOT_RUN:
        return NOT_RUN
    return f"{judgement.verdict}\n{here(judgement)}, n {_n(judgement)}, margin {margin(judgement)}"


def to_text(ledger: Ledger) -> str:
    """Counts, a table of ``WIDTH`` characters, the claims that were not run, and notes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = StringIO()
    console = Console(file=out, width=WIDTH, color_system=None)

    def listed(lines: Iterable[str]) -> None:
        grid = Table.grid(padding=(0, 1, 0, 0))
        for line in lines:
            grid.add_row("-", Text(shown(line, 2000)))
        console.print(grid)
        console.print()

    listed(map(summary, ledger.files))
    grid = Table(box=SIMPLE_HEAD, show_lines=True, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    widths = [33, 15, 25, 2, 7, 13] if len(ledger.files) == 1 else [33, 15, *[None] * len(ledger.files)]
    for heading, width in zip(_header(ledger), widths, strict=True):
        grid.add_column(Text(shown(heading, 60)), width=width, overflow="fold")
    for claim, row in ledger.rows():
        grid.add_row(*(Text("\n".join(map(shown, cell.split("\n")))) for cell in _cells(ledger, claim, row)))
    if grid.row_count:
        console.print(grid)
        console.print()
    lacking = ledger.not_run()
    if lacking:
        console.print("Not run, and what it would take:")
        listed(f"{', '.join(names)}: {reason}" for reason, names in lacking.items())
    listed(notes(ledger))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()) + "\n"


def judged_table(ledger: Ledger) -> str:
    """Summary of each file, and a Markdown table of the claims that are judged."""
    rows = [
        ["<br>".join(escape(part, 600) for part in cell.split("\n")) for cell in _cells(ledger, claim, row)]
        for claim, row in ledger.rows()
    ]
    parts = [escape(summary(file), 600) for file in ledger.files]
    if rows:
        header = [escape(heading) for heading in _header(ledger)]
        parts.append(table(header, rows, left=len(header)))
    return "\n\n".join(parts)


def to_markdown(ledger: Ledger) -> str:
    """The same as a Markdown table, lists and paragraphs."""
    parts = [judged_table(ledger)]
    lacking = ledger.not_run()
    if lacking:
        lines = [f"- {escape(', '.join(names), 2000)}: {escape(reason, 600)}" for reason, names in lacking.items()]
        parts.append("Not run, and what it would take:\n\n" + "\n".join(lines))
    parts.append("\n".join(f"- {escape(note, 2000)}" for note in notes(ledger)))
    return "\n\n".join(parts) + "\n"


def to_json(ledger: Ledger) -> str:
    """Everything, unrounded, with sorted keys."""
    claims = []
    for index, claim in enumerate(ledger.claims):
        about = {name: getattr(claim, name) for name in ("name", "source", "says", "direction", "paper")}
        numbers = [asdict(number) for number in claim.published]
        found = [asdict(file.judgements[index]) for file in ledger.files]
        claims.append({**about, "published": numbers, "judgements": found})
    files = [
        {"path": str(f.path), "suite": f.suite, "commit": f.commit, "answers": f.answers, "judged": f.judged}
        for f in ledger.files
    ]
    content = {"schema": 1, "level": LEVEL, "fewest_seeds": FEWEST, "files": files, "claims": claims}
    return json.dumps({**content, "notes": notes(ledger)}, indent=1, sort_keys=True, allow_nan=False) + "\n"


FORMATS = {"text": to_text, "markdown": to_markdown, "json": to_json}
