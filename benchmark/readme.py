"""python -m benchmark.readme: put the committed numbers of results/ between the markers of README.md and docs/.

With ``--picture RUN`` also draw docs/digits.png from the folder of a finished run of the suite digits.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmark.arguments import Parser
from benchmark.errors import OK, InputError, command
from benchmark.results import ledger as ledgers
from benchmark.results.answers_file import Answers, answers_of
from benchmark.results.headline import Difference, differences, to_headline
from benchmark.results.markdown import table as markdown_table
from benchmark.results.paired import ABSENT, CONTRADICTED, VERDICTS
from benchmark.results.record import Results
from benchmark.results.results_file import read_results
from benchmark.results.tables import to_markdown
from benchmark.suite.suite import load_suite, suite_of
from benchmark.system.files import read_json, write_text
from benchmark.system.surroundings import path_option

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "digits.png"
COLUMNS = (
    *("accuracy/clean", "accuracy/noisy", "accuracy/middle", "nll", "nll/ode", "level_ce", "mse/denoise/t=0.2"),
    *("accuracy/generated", "fd", "fd/intra", "precision", "nn_ratio"),
)
ASSISTED = ("accuracy/noisy", "accuracy/middle", "accuracy/generated", "fd")
FEW = ("accuracy/clean", "accuracy/noisy", "accuracy/middle", "accuracy/generated")
ANSWERS = (
    (
        ("Denoising assistance", "denoising_assisted", "noisy_classifier", *ASSISTED),
        ("Temporal consistency, 5 labels a class", "few_ssl_da", "few_supervised_da", *FEW),
    ),
    (
        ("Self-calibration, all labels", "self_calibrating", "noisy_encoder", *ASSISTED),
        ("Joint training", "joint", "joint_classifier", "accuracy/clean"),
    ),
    (("Classification diffusion", "cdm", "ddm", "fd", "precision", "recall"),),
)
"""Lines of the answer; in each: subject, the two cells compared, and the metrics."""
VARIANTS = (
    ("Self-calibration on all images, 2 labels a class", "few2_cg_sc_all", "few2_cg", *FEW, "fd"),
    ("Self-calibration on all images, 7 labels a class", "few_cg_sc_all", "few_cg", *FEW, "fd"),
    ("Temporal consistency without denoising assistance", "few_ssl_noisy", "few_supervised_noisy", *FEW),
    ("FixMatch, 5 labels a class", "few_fixmatch", "few_ssl_da", "accuracy/clean"),
    ("Pseudo-labels, 5 labels a class", "few_pseudo_label", "few_ssl_da", "accuracy/clean"),
    ("Mean Teacher, 5 labels a class", "few_mean_teacher", "few_ssl_da", "accuracy/clean"),
    ("EGC", "egc", "joint", *FEW, "fd"),
    ("Diffusion classifier of a conditional score model", "cfg_classifier", "denoising_assisted", *FEW),
    ("DiffAug", "diffaug", "noisy_classifier", *FEW, "fd"),
    ("Training-free guidance", "training_free", "noisy_classifier", "accuracy/generated", "fd"),
    ("Self-calibration of a denoising-assisted classifier", "few_da_sc", "few_da_encoder", *FEW, "fd"),
    ("The same with temporal consistency", "few_ssl_da_sc", "few_ssl_da_encoder", *FEW, "fd"),
    ("Pseudo-labels on top of self-calibration, 7 labels a class", "few_cg_sc_pl", "few_cg_sc_all", *FEW, "fd"),
    (
        "Pseudo-labels against the labeled images alone, shifted alike",
        "few_pseudo_label",
        "few_clean_shifted",
        "accuracy/clean",
    ),
    ("Batches in the proportion of the pools, not half and half", "few_random_batches", "few_cg_sc_all", *FEW, "fd"),
    ("Class-conditional classification diffusion", "cdm_conditional", "cfg", "accuracy/generated", "fd", "recall"),
    ("Classification diffusion on one Gaussian", "cdm_anchored", "cdm_pooled", "fd", "nll/ode"),
    ("Classification diffusion on straight lines", "cdm_transport", "cdm_pooled", "fd", "nll/ode"),
)
"""Subject, cells and metrics of variants and baselines, a line each."""
SIDES = ("ours", "theirs")
ONE_SEED = (
    "The committed table has one seed, which says nothing of other trainings: no difference is told. "
    "`python -m benchmark.run --suite {suite} --seeds 0,1,2` runs more."
)


def _committed(name: str) -> tuple[Results, list[str], set[str]]:
    """Committed results of a suite, or of its budget as ``SUITE-BUDGET``, its cells but the judge, and its floors."""
    suite = load_suite(*(suite_of(name) or (name,)))
    cells = [cell for cell in suite.cells if cell != suite.reference]
    results = read_results(_file(name))
    return results, cells, {cell for cell in cells if suite.cells[cell].floor}


def _file(name: str) -> Path:
    return ROOT / "results" / f"{name}.json"


def table(suite: str) -> str:
    """The main columns of a suite's committed results."""
    results, cells, floors = _committed(suite)
    return to_markdown(results, COLUMNS, cells=cells, floors=floors, answers=answers_of(_file(suite), results))


def headline(suite: str) -> str:
    """One row a method, with the seeds and counts that hold for all."""
    results, cells, floors = _committed(suite)
    own = [record for record in results.records if record.cell in cells and record.cell not in floors]
    seeds = len({record.seed for record in own})
    tests, samples = (
        max((record.n or 0 for record in own if record.metric == metric), default=0)
        for metric in ("accuracy/clean", "fd")
    )
    note = (
        f"Commit {results.commit}: mean of {seeds} seed{'' if seeds == 1 else 's'}, {tests} test images, {samples} "
        "samples a row; guided samples at a row's largest scale."
    )
    return f"{to_headline(results, cells, floors, answers_of(_file(suite), results))}\n\n{note}\n"


def answer(suite: str) -> str:
    """A line for each of ``ANSWERS``; instead of all, that one seed of each tells nothing of others."""
    results, *_ = _committed(suite)
    judged = ledgers.ledger_of([_with_every_row(suite)])
    answers = answers_of(_file(suite), results)
    told = [" ".join(_answers(group, results, answers)) for group in ANSWERS]
    lines = [*(f"- {line}" for line in told if line), *_verdicts(judged)]
    return "\n".join(lines or [ONE_SEED.format(suite=suite)]) + "\n"


def variants(suite: str) -> str:
    """A line for each of ``VARIANTS`` that has run."""
    results, *_ = _committed(suite)
    lines = _answers(VARIANTS, results, answers_of(_file(suite), results))
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _answers(pairs: Iterable[tuple[str, ...]], results: Results, answers: Answers | None) -> Iterator[str]:
    for subject, first, second, *metrics in pairs:
        if found := [c for metric in metrics for c in differences(results, first, second, metric, answers)]:
            told = [_told(verdict, found) for verdict in ("better", "worse", "undecided")]
            yield f"**{subject}** (`{first}` against `{second}`): {'; '.join(filter(None, told))}."


def _verdicts(judged: ledgers.Ledger) -> Iterator[str]:
    """A line that counts the verdicts on the claims that one results file judges, and names what does not hold."""
    found: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for claim, (judgement,) in judged.rows():
        found[judgement.verdict].append(f"`{claim.name}`")
    if any(found.values()):
        named = {verdict: f" ({', '.join(found[verdict])})" for verdict in (CONTRADICTED, ABSENT)}
        told = [f"**{len(names)} {verdict}**{named.get(verdict, '')}" for verdict, names in found.items() if names]
        yield f"- **The papers' claims**, {sum(map(len, found.values()))} judged: {'; '.join(told)}."


def _told(verdict: str, changes: list[Difference]) -> str:
    some = [f"{_name(change)} {change}" for change in changes if change.verdict == verdict]
    return f"**{verdict}** in {', '.join(some)}" if some else ""


def _name(change: Difference) -> str:
    names = {
        "accuracy/noisy": "accuracy over all noise",
        "accuracy/middle": "accuracy at middle noise",
        "accuracy/generated": "samples of the asked class",
    }
    name = names.get(change.metric, change.metric.removesuffix("/clean"))
    return name if change.scale is None else f"{name} at scale {change.scale:g}"


def speed(name: str) -> str:
    """The ratios of a committed file of ``benchmark.speed``; instead of them, how to measure some."""
    path = ROOT / "results" / f"{name}.json"
    if not path.is_file():
        return "None are committed yet; the first command above measures them.\n"
    found = read_json(path)
    body = []
    for row in found["rows"]:
        goal = "" if row["goal"] is None else f"{row['goal']:.2f}"
        ratios = f"{row['ratio']:.2f}", f"{row['least']:.2f}", goal
        body.append([f"`{row['target']}`", row["peer"], *ratios, *(f"{row[k]:.3g}" for k in SIDES), row["unit"]])
    shown = markdown_table(["target", "peer", "ratio", "min", "goal", *SIDES, "unit"], body, left=2)
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    machine = found["machine"]
    threads = f"{found['threads']} thread{'' if found['threads'] == 1 else 's'}"
    return f"{shown}\n\n{machine['cpu']}, {machine['cores']} cores, {threads}; {versions}.\n"


def _with_every_row(suite: str) -> Path:
    """Committed results of a suite's budget ``full``, which has the suite's rows and more; else those of the suite."""
    full = _file(f"{suite}-full")
    return full if full.is_file() else _file(suite)


def ledger(suite: str) -> str:
    """All claims that a suite's committed results judge, with their numbers."""
    return ledgers.to_markdown(ledgers.ledger_of([_with_every_row(suite)]))


def judged(suite: str) -> str:
    """The claims that a suite's committed results judge, without what others would take."""
    return ledgers.judged_table(ledgers.ledger_of([_with_every_row(suite)])) + "\n"


BLOCKS = {
    "table": table,
    "headline": headline,
    "answer": answer,
    "variants": variants,
    "ledger": ledger,
    "judged": judged,
    "speed": speed,
}


def with_tables(text: str) -> str:
    """``text`` with each block ``<!-- KIND: SUITE -->`` ... ``<!-- end -->`` up to date; see ``BLOCKS``."""
    block = re.compile(rf"(<!-- ({'|'.join(BLOCKS)}): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]](match[3])}\n{match[4]}", text)


def documents() -> list[Path]:
    """Documents that may have such blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def parser() -> Parser:
    """The command line."""
    p = Parser(prog="python -m benchmark.readme", description=__doc__)
    p.add_argument("--picture", metavar="RUN", type=path_option, help="draw docs/digits.png from this run")
    return p


@command
def main(argv: list[str] | None = None) -> int:
    """Rewrite README.md and the pages of docs/, and draw the picture if asked to."""
    run = parser().parse_args(argv).picture
    for path in documents():
        try:
            old = path.read_text(encoding="utf-8")
            if (new := with_tables(old)) != old:
                write_text(path, new)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    if run is not None:
        from benchmark.results.picture import draw

        draw(run, PICTURE)
    return OK


if __name__ == "__main__":
    sys.exit(main())
