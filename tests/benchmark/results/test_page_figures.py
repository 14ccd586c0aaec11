"""Figures of a run's page: what was measured in a row is drawn, and pictures are of what the results tell."""

import numpy as np
import pytest
from tables import number, results

from benchmark.errors import InputError
from benchmark.results.answer_pictures import PICTURES
from benchmark.results.page_figures import page_figures
from benchmark.results.record import UNNORMALISED
from benchmark.results.series import likelihoods, sweep_curves
from benchmark.suite.stages import Stage

RNG = np.random.default_rng(0)


def titles(run, *records):
    found = results(*records)
    return {shown.title: shown for shown in page_figures(run, found, ["a", "b"])}


def scaled(cell, scale, metric="fd", value=1.0, seed=0):
    return number(cell, seed, metric=metric, value=value, guidance_scale=scale, feature_network="reference")


def counterfactual(run, cell, **changed):
    """A cell whose stage of counterfactuals is finished."""
    folder = run / cell / "seed0"
    folder.mkdir(parents=True)
    grey = lambda *shape: RNG.integers(0, 17, shape).astype(np.uint8)  # noqa: E731
    arrays = {
        "original": grey(12, 8, 8, 1), "changed": grey(12, 8, 8, 1), "noisy": np.zeros((10, 8, 8, 1), np.float32),
        "labels": np.arange(12), "asked": np.arange(12) + 1, "judged": np.arange(12),
    } | changed  # fmt: skip
    np.savez(folder / "counterfactual@1.npz", **arrays)
    Stage("counterfactual", "key", scale=1.0).complete(folder, lambda: {"outputs": ["counterfactual@1.npz"]})


def test_a_run_without_courses_has_no_figures(tmp_path):
    assert titles(tmp_path, number("a", 0, metric="accuracy/clean", value=0.5)) == {}


def test_three_scales_are_a_sweep_and_two_are_not(tmp_path):
    records = [scaled("a", s, value=s + seed, seed=seed) for s in (0, 1, 3) for seed in (0, 1)] + [
        scaled("b", s) for s in (1, 3)
    ]
    curves = sweep_curves(results(*records), ["a", "b"], "fd", "reference")
    assert curves == {"a": {0: 0.5, 1: 1.5, 3: 3.5}}
    drawn = titles(tmp_path, *records)["Guided samples over the guidance scale"].svg
    assert ">a<" in drawn
    assert ">b<" not in drawn


def test_metrics_of_samples_are_panels_of_one_figure(tmp_path):
    records = [scaled("a", s, metric) for s in (0, 1, 3) for metric in ("fd", "recall", "accuracy/generated")]
    (shown,) = titles(tmp_path, *records).values()
    assert all(f">{name}<" in shown.svg for name in ("fd", "recall", "accuracy/generated"))


def test_a_likelihood_of_unknown_mass_stands_on_no_scale():
    records = [
        number("a", 0, metric="nll", value=2.0, kind="bound"), number("a", 1, metric="nll", value=3.0, kind="bound"),
        number("b", 0, metric="nll", value=-9.0, kind=UNNORMALISED),
        number("b", 0, metric="nll/ode", value=2.5, kind="estimate"),
    ]  # fmt: skip
    found = likelihoods(results(*records), ["a", "b"])
    assert [(s.label, s.group, s.mean, s.error) for s in found] == [
        ("a", "bound", 2.5, 0.5), ("b", "estimate by the ODE", 2.5, 0.0)
    ]  # fmt: skip


def test_gradients_have_a_figure_for_each_kind_of_points(tmp_path):
    records = [
        number("a", 0, metric="gradient/mse", value=1 / sigma, sigma=sigma, points=points, scaling=scaling)
        for sigma in (1.0, 3.0) for points in ("grid", "noisy test images") for scaling in ("none", "best")
    ]  # fmt: skip
    start = "Gradients against the true ones, "
    assert list(titles(tmp_path, *records)) == [f"{start}grid", f"{start}noisy test images"]


def test_pictures_are_of_cells_whose_answers_the_results_hold(tmp_path):
    for cell in ("a", "b"):
        counterfactual(tmp_path, cell)
    title = PICTURES["counterfactuals"].title
    asked = number("a", 0, metric="counterfactual/asked", value=0.5, guidance_scale=1)
    other = number("b", 0, metric="accuracy/clean", value=0.5)
    assert title not in titles(tmp_path, other)
    assert titles(tmp_path, other, asked)[title].image.startswith("data:image/png;base64,")


@pytest.mark.parametrize("changed", [{"noisy": np.zeros(3)}, {"labels": np.zeros((2, 2))}])
def test_unusable_answers_are_one_line_that_names_the_cells(tmp_path, changed):
    counterfactual(tmp_path, "a", **changed)
    with pytest.raises(InputError, match="counterfactuals: unusable answers of a; run the suite again"):
        titles(tmp_path, number("a", 0, metric="counterfactual/asked", value=0.5, guidance_scale=1))
