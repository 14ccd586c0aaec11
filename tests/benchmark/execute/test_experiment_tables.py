"""The tables of an experiment: its own cells in a folder of its own, the run's tables as they were."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from benchmark.execute.experiment_tables import tabulate_experiment
from benchmark.execute.session import jobs_of
from benchmark.execute.tabulate import failed_records, tabulate
from benchmark.results.record import measured
from benchmark.results.results_file import read_results
from benchmark.suite.experiments import Experiment, Selection
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import Cell, Suite
from benchmark.system.files import write_json

CONFIG = {"model": {"class_path": "methods.supervised.Supervised", "init_args": {}}, "trainer": {}, "data": {}}
ENGINE = SimpleNamespace(here=True, hardware={}, resolve=lambda cells, dry: dict.fromkeys(cells, CONFIG))
EXPERIMENT = Experiment(
    "experiments/a1", "(a) Table 1", "accuracy", "higher", ["accuracy/clean", "f1", "accuracy/t=*"], [], [],
    {"s": Selection(["other"])},
)  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """Suite, folder and jobs of a finished run of two cells, with its tables."""
    (tmp_path / "configs").mkdir()
    cells = {name: Cell(name, config=str(tmp_path / "configs" / f"{name}.yaml")) for name in ("judge", "other")}
    suite, out = Suite("s", "judge", Protocol(), cells, [0]), tmp_path / "run"
    jobs, every = jobs_of(suite, ENGINE, out, [0], [*cells], write=True)
    for job in jobs:
        for stage in job.stages:
            write_json(job.folder / "per_class.json", [])
            records = [measured(job.cell.name, "m", 0, "accuracy/clean", 0.5, n=10)]
            for t in (0.2, 0.8):
                records.append(measured(job.cell.name, "m", 0, f"accuracy/t={t}", 1 - t, n=10, protocol={"sigma": t}))
            write_json(job.folder / "record.json", [asdict(record) for record in records])
            outputs = ["record.json", "per_class.json"] if stage.name == "metrics" else []
            stage.complete(job.folder, lambda outputs=outputs: {"outputs": outputs})
    assert tabulate(suite, ENGINE, every, {}, out) == 0
    return suite, out, every


def test_an_experiment_has_tables_page_and_figures_of_its_cells_and_leaves_the_runs(finished, capsys):
    suite, out, every = finished
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    capsys.readouterr()
    assert tabulate_experiment(EXPERIMENT, ["other"], suite, ENGINE, every, {}, out) == 0
    told = capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before
    own = out / "experiments" / "a1"
    assert {record.cell for record in read_results(own / "results.json").records} == {"other"}
    assert "other" in (own / "report.html").read_text()
    assert {"accuracy-t.png", "accuracy-t.npz"} == {path.name for path in (own / "figures").iterdir()}
    assert "Expected: higher" in (own / "experiment.md").read_text()
    for text in ("(a) Table 1: accuracy", "expected: higher", str(own / "results.md"), "accuracy-t.png"):
        assert text in told


def test_a_failed_cell_of_an_experiment_is_a_failure_there_too(finished):
    suite, out, every = finished
    results = {"other/seed0/evaluate": {"status": "failed", "error": "loss nan"}}
    assert tabulate_experiment(EXPERIMENT, ["other"], suite, ENGINE, every, results, out) == 4
    assert {r.status for r in read_results(out / "experiments" / "a1" / "results.json").records} == {"failed"}


def test_a_failed_evaluation_has_each_metric_of_each_question_once_at_each_scale(tmp_path):
    config = str(tmp_path / "configs" / "other.yaml")
    cell = Cell("other", config=config, guidance_scales=[1.0, 3.0], ask=["counterfactual", "alignment"])
    suite = Suite("s", "judge", Protocol(), {"judge": Cell("judge", config=config), "other": cell}, [0])
    _, every = jobs_of(suite, ENGINE, tmp_path / "run", [0], [*suite.cells], write=True)
    (job,) = (job for job in every if job.name == "other/seed0/evaluate")
    found = [(r.metric, r.protocol.get("guidance_scale")) for r in failed_records(job, "loss nan")]
    assert len(found) == len({*found})
    assert {scale for metric, scale in found if metric == "counterfactual/asked"} == {1.0, 3.0}
    assert {scale for metric, scale in found if metric in ("gradient/alignment", "accuracy/clean")} == {None}
    assert ("fd", 3.0) in found
