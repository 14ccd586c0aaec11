"""Scores of single test images: their means are the records, and a run keeps them beside its tables."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.execute.image_scores import image_scores
from benchmark.execute.tabulate import write_image_scores
from benchmark.records.cell import answer_records
from benchmark.results.answers_file import FILE, Answers
from benchmark.results.record import OK, Results
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell
from benchmark.system.arrays import save_arrays

PROTOCOL = Protocol(levels=3, noisy_draws=2, middle=(0.4, 2.0), denoise_times=(0.25, 0.75))
MEANS = {
    *("accuracy/clean", "accuracy/noisy", "accuracy/levels", "accuracy/middle", "accuracy/masked_x"),
    *("accuracy/masked_denoised", "label_nll", "nll", "nfe/nll", "mse/denoise/t=0.25", "mse/denoise/t=0.75"),
    *("mse/calibration/t=0.25", "mse/calibration/t=0.75"),
    *("nll/ode", "nll/lattice", "level_ce", "accuracy/level", "mse/level"),
}
N = 30


def answered(folder, name="cell", seed=0, images=N):
    """An evaluation with arrays of every question, as methods would answer them."""
    rng = np.random.default_rng(seed)
    logits = {"clean": (images, 4), "noisy": (2, images, 4), "levels": (3, images, 4)}
    logits |= {"masked_x": (2, images, 4), "masked_denoised": (2, images, 4)}
    save_arrays(
        folder / "logits.npz", y=rng.integers(4, size=images), level_times=np.array([0.2, 0.5, 0.8]),
        level_sigmas=np.array([0.1, 0.5, 1.0]), **{k: rng.normal(size=shape) for k, shape in logits.items()},
    )  # fmt: skip
    save_arrays(folder / "log_prob.npz", bits=rng.normal(size=images), nfe=np.full(images, 7.0))
    errors = rng.random((2, images))
    for file in ("denoise.npz", "calibration.npz"):
        save_arrays(folder / file, errors=errors, times=np.array([0.25, 0.75]), sigmas=np.array([0.5, 1.0]))
    rows = {n: rng.random(images) for n in ("ode_bits", "lattice_bits", "level_ce", "level_mse")}
    save_arrays(
        folder / "diagnostics.npz", **rows, level_right=rng.random(images) < 0.5, noisy_bits=rng.random((images, 2)),
        level_balance=rng.random((images, 3)), sigmas=np.array([0.5, 1.0]),
    )  # fmt: skip
    about = {"kind": "exact", "data": "dequantised", "settings": {}, "process": "linear"}
    files = {"classify": "logits", "likelihood": "log_prob", "denoise": "denoise", "diagnose": "diagnostics"}
    files["calibrate"] = "calibration"
    for kind, file in files.items():
        Stage(kind, "key").complete(folder, lambda file=file: {"outputs": [f"{file}.npz"], **about})
    Stage("gradients", "key").complete(folder, lambda: {"outputs": [], "reason": "no exact score"})
    config = {"model": {"class_path": "methods.noisy_classifier.NoisyClassifierGuidance"}}
    stages = (Stage("metrics", f"of {name} {seed}"),)
    return Job(Cell(name, config="a.yaml"), seed, "evaluate", Path(folder), stages, Path(folder), config=config)


def test_records_are_the_means_of_their_images(tmp_path):
    job = answered(tmp_path)
    values = {r.metric: r.value for r in answer_records(job, PROTOCOL) if r.status == OK}
    found = image_scores(job, PROTOCOL)
    assert found.keys() == MEANS
    for metric, scores in found.items():
        assert scores.shape == (N,)
        assert scores.mean() == pytest.approx(values[metric], abs=1e-12), metric


def test_a_cell_without_answers_has_no_scores(tmp_path):
    job = answered(tmp_path)
    for kind in ("classify", "likelihood", "denoise", "calibrate", "diagnose"):
        Stage(kind, "key").complete(tmp_path, lambda: {"outputs": [], "reason": "no class posterior"})
    assert image_scores(job, PROTOCOL) == {}


def test_a_run_keeps_the_scores_of_what_it_tabulates_and_asks_no_array_twice(tmp_path):
    jobs = [answered(tmp_path / "a", "a"), answered(tmp_path / "b", "b", seed=1, images=20)]
    write_image_scores(tmp_path, PROTOCOL, jobs)
    answers = Answers(tmp_path / FILE)
    records = [record for job in jobs for record in answer_records(job, PROTOCOL)]
    answers.check(Results("s", "", {}, tuple(records)))
    assert answers.of("b", 1, "level_ce").shape == (20,)
    before = {name: array.tobytes() for name, array in np.load(tmp_path / FILE).items()}
    for path in (tmp_path / "a").glob("*.npz"):
        path.unlink()
    write_image_scores(tmp_path, PROTOCOL, jobs)
    assert {name: array.tobytes() for name, array in np.load(tmp_path / FILE).items()} == before
    write_image_scores(tmp_path, PROTOCOL, jobs[1:])
    assert next(iter(Answers(tmp_path / FILE).rows))[:2] == ("b", 1)


def test_a_damaged_file_is_written_anew(tmp_path):
    (tmp_path / FILE).write_bytes(b"PK of another program")
    write_image_scores(tmp_path, PROTOCOL, [answered(tmp_path / "a", "a")])
    assert Answers(tmp_path / FILE).of("a", 0, "nll").shape == (N,)
