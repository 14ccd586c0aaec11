"""Figures of a run's page: what was measured in a row is drawn, and pictures are of what the results tell."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from tables import number, results

from benchmark.results.answer_pictures import PICTURES
from benchmark.results.drawings import Strip, curves_figure, png, strips_figure, svg
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


def test_several_scales_are_a_sweep_and_one_is_not(tmp_path):
    records = [scaled("a", s, value=s + seed, seed=seed) for s in (1, 3) for seed in (0, 1)] + [scaled("b", 1)]
    curves = sweep_curves(results(*records), ["a", "b"], "fd", "reference")
    assert curves == {"a": {1: 1.5, 3: 3.5}}
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
def test_unusable_answers_of_one_cell_leave_the_page_its_other_figures(tmp_path, changed):
    counterfactual(tmp_path, "a", **changed)
    asked = number("a", 0, metric="counterfactual/asked", value=0.5, guidance_scale=1)
    sweep, failed = titles(tmp_path, asked, *(scaled("a", s) for s in (1, 3)))
    assert sweep == "Guided samples over the guidance scale"
    assert failed.endswith("cannot be drawn from the answers of a; run the suite again")


def look(drawing, name):
    """Colours and dashes of the line of a label, the first of the legend's lines that the figure holds."""
    (legend,) = drawing.legends
    handles = dict(zip((t.get_text() for t in legend.get_texts()), legend.get_lines(), strict=True))
    return handles[name].get_color(), handles[name].get_linestyle()


def test_a_cell_looks_the_same_in_every_figure_and_no_two_alike():
    order = [f"cell{i}" for i in range(70)]
    few = curves_figure({"fd": {"cell9": {0: 1.0}, "cell40": {0: 2.0}}}, "x", order=order)
    many = curves_figure({"fd": {f"{cell} @1": {0: 1.0} for cell in order}}, "x", order=order)
    assert look(few, "cell9") == look(many, "cell9 @1")
    assert look(few, "cell40") == look(many, "cell40 @1")
    assert len({look(many, f"{cell} @1") for cell in order}) == 70


@pytest.mark.parametrize("panels", [1, 3])
def test_all_labels_lie_inside_the_picture(panels):
    curves = {f"cell{i}": {0: 1.0, 1: 2.0} for i in range(22)}
    drawn = svg(curves_figure({f"metric{i}": curves for i in range(panels)}, "x"), "salt")
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
    places = re.findall(r'x="([-\d.]+)" y="([-\d.]+)"[^>]*>(cell\d+)<', drawn)
    assert len(places) == 22
    assert all(0 < float(x) < width - 20 and 0 < float(y) < height for x, y, _ in places)


def test_pictures_inside_a_page_are_small():
    noise = [Strip(f"cell{i}", RNG.random((10, 32, 32, 3))) for i in range(60)]
    content = base64.b64decode(png(strips_figure(noise)).partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert max(picture.size) < 3200
    assert len(content) < 3e6
