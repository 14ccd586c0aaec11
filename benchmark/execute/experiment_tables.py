"""Tables, page and figures of an experiment, in a folder of its own in the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, escaped, shortened
from benchmark.execute.tabulate import tabulate
from benchmark.results.definitions import definition_of, family, suggestion
from benchmark.suite.experiments import Experiment
from benchmark.suite.jobs import Job
from benchmark.suite.suite import Suite
from benchmark.system.files import write_text


def check_experiment(experiment: Experiment) -> None:
    """Check that the metrics and figures of an experiment are known, before the work that they come from.

    Raises:
        InputError: Naming the first unknown one, and the nearest known.
    """
    from benchmark.results.answer_pictures import PICTURES  # not for `--help`

    for metric in experiment.metrics:
        try:
            family(metric) if metric.endswith("=*") else definition_of(metric)
        except ValueError as error:
            raise InputError(f"{experiment.name}.yaml: metrics: {error}") from None
    for name in experiment.figures:
        if name not in PICTURES:
            told = f"unknown figure {shortened(name)}{suggestion(name, PICTURES)}"
            raise InputError(f"{experiment.name}.yaml: figures: {told}")


def tabulate_experiment(
    experiment: Experiment,
    cells: Sequence[str],
    suite: Suite,
    engine: Any,
    jobs: Sequence[Job],
    results: dict[str, dict[str, Any]],
    out: Path,
) -> int:
    """Write the tables, page and figures of an experiment's cells and print its metrics; returns the exit code.

    The tables of the run's other cells stay as they are.

    Args:
        experiment: The experiment.
        cells: Its cells.
        suite: The suite that carries it out.
        engine: Engine that carried out the jobs.
        jobs: Jobs of every cell and seed.
        results: Results of the jobs of this run.
        out: Folder of the run.
    """
    to = out / experiment.name
    print(f"\n{escaped(experiment.source)}: {escaped(experiment.paper)}\nexpected: {escaped(experiment.expect)}")
    own = [job for job in jobs if job.cell.name in cells]
    families = [metric for metric in experiment.metrics if metric.endswith("=*")]
    shown = [metric for metric in experiment.metrics if metric not in families]
    code = tabulate(suite, engine, own, results, out, to=to, metrics=shown)
    write_text(to / "experiment.md", _about(experiment, suite, cells))
    from benchmark.results.figures import write_figures  # not for `--help`

    for path in write_figures(out, to, cells, experiment.metrics, experiment.figures):
        print(f"figure:  {escaped(path)}")
    return code


def _about(experiment: Experiment, suite: Suite, cells: Sequence[str]) -> str:
    return (
        f"# {experiment.name} on {suite.name}\n\n{experiment.source}: {experiment.paper}\n\n"
        f"Expected: {experiment.expect}\n\nMetrics: {', '.join(experiment.metrics)}\n\nCells: {', '.join(cells)}\n"
    )
