"""Compare two results files: ``python -m benchmark.compare OLD NEW``.

Numbers are matched by cell, seed, metric and protocol, scores of test images in the files beside these by image. Exit
code: 0 nothing is worse than tolerance allows, 1 something is, 2 unusable input, 3 the two were not measured alike, 4
cells failed or are missing.
"""

import json
import os
import sys
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark import errors
from benchmark.arguments import Parser
from benchmark.errors import REGRESSION, InputError, command, shown, tell
from benchmark.results.answers_file import Answers, answers_of, answers_path, write_answers
from benchmark.results.differences import (
    BETTER,
    INCOMPLETE,
    NEW,
    NOT_COMPARABLE,
    SAME,
    WARNING,
    WORSE,
    Change,
    Comparison,
    Problem,
    compare,
    seed_list,
)
from benchmark.results.markdown import escape, table
from benchmark.results.record import Results
from benchmark.results.results_file import read_results, write_results
from benchmark.system.surroundings import path_option

ORDER = (NOT_COMPARABLE, INCOMPLETE, WORSE, WARNING, BETTER, NEW, SAME)
WIDTH = 120
"""Characters of a line of text."""
NAMED = 4
"""Metrics named of a cell that is better."""
SUMMARY_BYTES = 1_000_000  # GitHub drops a step's summary above 1,024 kB
Line = tuple[str, str, str, str]


def lines(comparison: Comparison) -> list[Line]:
    """Verdict, cell, metric and what there is to say, the gravest first."""
    protocols: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for change in comparison.changes:
        protocols.setdefault((change.cell, change.metric), []).append(change.protocol)
    found = [_problem_line(problem) for problem in comparison.problems]
    found += [_change_line(change, protocols[change.cell, change.metric]) for change in comparison.changes]
    return sorted(found, key=lambda line: ORDER.index(line[0]))


def _problem_line(problem: Problem) -> Line:
    return problem.kind, problem.cell or "-", ", ".join(problem.metrics) or "-", problem.message


def _change_line(change: Change, protocols: Sequence[dict[str, Any]]) -> Line:
    told = [
        f"{name}={change.protocol.get(name)}"
        for name in sorted({name for protocol in protocols for name in protocol})
        if any(protocol.get(name) != change.protocol.get(name) for protocol in protocols)
    ]
    metric = f"{change.metric} ({', '.join(told)})" if told else change.metric
    verdict = WARNING if change.verdict == WORSE and not change.gating else change.verdict
    return (
        verdict,
        change.cell,
        metric,
        f"{change.old:.6g} -> {change.new:.6g}, gain {change.gain:+.3g}, tolerance {change.tolerance:.3g}"
        f" ({change.tolerance_from}), {seed_list(change.seeds)}, n={change.n}",
    )


def headline(comparison: Comparison, strict: bool) -> str:
    """Verdict, exit code and how many lines of each kind there are."""
    found = [line[0] for line in lines(comparison)]
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in ORDER if kind in found) or "nothing to compare"
    words = {0: "no regression", 1: "regression", 3: "not comparable", 4: "incomplete"}
    code = comparison.exit_code(strict)
    verdict = words[code] if code != REGRESSION or comparison.of_verdict(WORSE, gating=True) else "better (--strict)"
    return f"{verdict}, exit code {code}: {counts}"


def _origin(comparison: Comparison) -> str:
    (old, new), (before, after) = comparison.suites, comparison.commits
    suite = old if old == new else f"{old} -> {new}"
    text = f"suite {suite}, commit {before or 'unknown'} -> {after or 'unknown'}"
    return f"{text}; environment: {', '.join(comparison.environment)}" if comparison.environment else text


def to_text(comparison: Comparison, strict: bool = False) -> str:
    """Lines of at most ``WIDTH`` characters, the gravest first, and the verdict last."""
    found = [tuple(map(shown, line)) for line in _brief(comparison)]
    widths = [min(28, max((len(line[column]) for line in found), default=0)) for column in range(3)]
    body = []
    for line in found:
        start = "  ".join(text.ljust(width) for text, width in zip(line[:3], widths, strict=True))
        said = shown(line[3], max(40, WIDTH - len(start) - 2)) if line[0] == INCOMPLETE else line[3]
        body += _wrapped(f"{start}  {said}")
    return "\n".join([*_wrapped(shown(_origin(comparison))), *body, headline(comparison, strict)]) + "\n"


def _brief(comparison: Comparison) -> list[Line]:
    """``lines`` for the eye: one a cell for what is incomplete or better; warnings and what is the same are counted."""
    groups: dict[tuple[str, ...], list[Problem]] = {}
    for problem in comparison.problems:
        if problem.kind != WARNING:
            key = problem.kind, problem.cell, "" if problem.kind == INCOMPLETE else problem.message
            groups.setdefault(key, []).append(problem)
    found = [_folded(problems) for problems in groups.values()]
    every = lines(comparison)
    found += [line for line in every if line[0] == WORSE]
    better: dict[str, list[Line]] = {}
    for line in every:
        if line[0] == BETTER:
            better.setdefault(line[1], []).append(line)
    found += [of[0] if len(of) == 1 else _gains(of) for of in better.values()]
    for verdict, meaning in ((WARNING, "costs and the like, which decide nothing"), (SAME, "within tolerance")):
        cells = [line[1] for line in every if line[0] == verdict]
        if cells:
            found.append((verdict, _counted(set(cells), "cell"), _counted(cells, "number"), meaning))
    return sorted(found, key=lambda line: ORDER.index(line[0]))


def _folded(problems: Sequence[Problem]) -> Line:
    """One line of problems of a kind that a cell, or the suite, has."""
    metrics = list(dict.fromkeys(metric for problem in problems for metric in problem.metrics))
    messages = list(dict.fromkeys(problem.message for problem in problems))
    what = metrics[0] if len(metrics) == 1 else _counted(metrics, "metric") if metrics else "-"
    more = f"; and {len(messages) - 1} more" if len(messages) > 1 else ""
    return problems[0].kind, problems[0].cell or "-", what, f"{messages[0]}{more}"


def _gains(of_cell: Sequence[Line]) -> Line:
    """One line of what is better in a cell."""
    metrics = list(dict.fromkeys(metric.partition(" (")[0] for _, _, metric, _ in of_cell))
    more = f" and {len(metrics) - NAMED} more" if len(metrics) > NAMED else ""
    return BETTER, of_cell[0][1], _counted(of_cell, "number"), ", ".join(metrics[:NAMED]) + more


def _counted(things: Collection[str], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False, drop_whitespace=True) or [""]


def to_markdown(comparison: Comparison, strict: bool = False) -> str:
    """Verdict and what differs first, what is the same folded away."""
    escaped = [tuple(map(escape, line)) for line in lines(comparison)]
    header = ("verdict", "cell", "metric", "what")
    parts = [f"### {headline(comparison, strict).capitalize()}", escape(_origin(comparison))]
    changed = [line for line in escaped if line[0] != SAME]
    same = [line for line in escaped if line[0] == SAME]
    if changed:
        parts.append(table(header, changed, left=4))
    if same:
        summary = f"<details><summary>{len(same)} within tolerance</summary>"
        parts += [summary, table(header, same, left=4), "</details>"]
    return "\n\n".join(parts) + "\n"


def to_json(comparison: Comparison, strict: bool = False) -> str:
    """Everything, unrounded, with sorted keys."""
    content = {"schema": 1, "exit_code": comparison.exit_code(strict), **asdict(comparison)}
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


FORMATS = {"text": to_text, "markdown": to_markdown, "json": to_json}


def append_summary(path: Path, text: str) -> None:
    """Append Markdown to a step summary, cut at the end of a line where the file would pass ``SUMMARY_BYTES``."""
    try:
        room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
        with open(path, "ab") as file:
            file.write(cut(text, room).encode())
    except OSError as error:
        tell(f"warning: no step summary: {error.strerror}")


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` bytes of UTF-8: whole lines and a note if some are left out."""
    if len(text.encode()) <= room:
        return text
    note = "\nCut here: the summary would be too long; the job's output has the rest.\n"
    kept = text.encode()[: max(0, room - len(note) - len("\n</details>\n"))].decode(errors="ignore")
    kept = kept[: kept.rfind("\n") + 1]
    closing = "\n</details>\n" if kept.count("<details>") > kept.count("</details>") else ""
    return (kept + closing + note) if len(note) <= room else ""


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.compare", description=__doc__.split("\n\n")[1])
    p.add_argument("old", metavar="OLD", type=path_option, help="results.json of the baseline")
    p.add_argument("new", metavar="NEW", type=path_option, help="results.json to judge")
    p.add_argument("--format", choices=FORMATS, default="text", help="what to print (default: text)")
    p.add_argument("--strict", action="store_true", help="exit 1 for improvements too: the baseline is stale")
    p.add_argument(
        "--accept", action="store_true", help="write NEW, with scores of images, over OLD if comparable and whole"
    )
    p.add_argument("--force", action="store_true", help="with --accept: whatever differs, or where OLD is missing")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Compare and print; returns the exit code."""
    args = parser().parse_args(argv)
    if args.force and not args.accept:
        parser().error("--force only means something with --accept")
    new = read_results(args.new)
    first = args.accept and args.force and not args.old.exists()
    old = Results(new.suite, "", {}, ()) if first else read_results(args.old)
    answers = (None if first else answers_of(args.old, old), answers_of(args.new, new))
    comparison = compare(old, new, answers)
    print(FORMATS[args.format](comparison, args.strict), end="")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        append_summary(Path(summary), to_markdown(comparison, args.strict))
    code = comparison.exit_code(args.strict)
    if not args.accept:
        return code
    if code > REGRESSION and not args.force:
        tell(f"error: {args.old} is kept: {headline(comparison, args.strict)}; --force accepts it")
        return code
    if (lost := _lost(old, new, answers)) and not args.force:
        tell(f"error: {args.old} is kept: NEW lacks {lost}; --force accepts it")
        return errors.NOT_COMPARABLE
    try:
        write_answers(answers_path(args.old), [] if answers[1] is None else [*answers[1].rows.values()])
        write_results(args.old, new)
    except OSError as error:
        raise InputError(f"{args.old}: cannot be written: {error.strerror}") from None
    tell(f"written: {args.old}")
    return 0


def _lost(old: Results, new: Results, answers: tuple[Answers | None, Answers | None]) -> str:
    """Name a seed that ``new`` lacks, or the scores of images, if it does; empty if nothing would be lost."""
    of_new = {(record.cell, record.seed) for record in new.records}
    for record in old.records:
        if (record.cell, record.seed) not in of_new:
            return f"seed {record.seed} of {shown(record.cell, 60)}"
    return "the scores of images" if answers[0] is not None and answers[1] is None else ""


if __name__ == "__main__":
    sys.exit(main())
