"""Figures of experiments: each has its arrays beside it, and shows the cells that there are."""

import numpy as np
import pytest
from PIL import Image
from tables import number, results

from benchmark.results.answer_pictures import PICTURES
from benchmark.results.figures import write_figures
from benchmark.results.tables import write_tables
from benchmark.suite.stages import Stage

RNG = np.random.default_rng(0)


STAGES = {"samples": "sample", "diagnostics": "diagnose"}
"""Stages whose files have other names."""


def finished(folder, name, arrays):
    """Arrays of a finished stage, such as ``samples@3``."""
    kind, _, scale = name.partition("@")
    np.savez(folder / f"{name}.npz", **arrays)
    stage = Stage(STAGES.get(kind, kind), "key", scale=float(scale) if scale else None)
    stage.complete(folder, lambda: {"outputs": [f"{name}.npz"]})


@pytest.fixture
def run(tmp_path):
    """A run with all answers of one cell, none of another, and accuracies of both at three levels and two seeds."""
    folder = tmp_path / "run" / "first" / "seed0"
    folder.mkdir(parents=True)
    grey = lambda *shape: RNG.integers(0, 17, shape).astype(np.uint8)  # noqa: E731
    real = lambda *shape: RNG.normal(size=shape).astype(np.float32)  # noqa: E731
    arrays = {
        "samples@3": {"images": grey(12, 8, 8, 1)},
        "samples@1": {"images": grey(12, 8, 8, 1)},
        "diagnostics": {"confusion": RNG.random((10, 10))},
        "alignment": {
            "images": grey(10, 8, 8, 1), "gradients": real(3, 10, 8, 8, 1), "times": np.array([0.3, 0.35, 0.8]),
            "sigmas": np.array([0.1, 0.14, 4.0]),
        },
        "steps@1": {
            "noisy": real(11, 10, 8, 8, 1), "denoised": real(11, 10, 8, 8, 1),
            "labels": np.arange(10) % 5, "probabilities": RNG.dirichlet(np.ones(5), (20, 10)),
        },
        "counterfactual@1": {
            "original": grey(12, 8, 8, 1), "changed": grey(12, 8, 8, 1), "noisy": real(10, 8, 8, 1),
            "labels": np.arange(12), "asked": np.arange(12) + 1, "judged": np.arange(12),
        },
        "gradients": {
            "grid_places": real(12, 2), "grid_classes": np.arange(12) // 6, "sigmas": np.array([1.0, 7.5]),
            "grid_truth": real(2, 12, 2), "grid_estimate": real(2, 12, 2),
        },
        "curves": {
            "images": grey(10, 8, 8, 1), "mean": RNG.random((8, 8, 1)), "denoised": real(7, 10, 8, 8, 1),
            "times": np.array([0.2, 0.9]), "sigmas": np.array([0.1, 4.0]), "errors": RNG.random((2, 30)),
            "log_levels": -RNG.random((4, 12)), "true": np.array([0.2, 0.4, 0.6, 0.8]),
        },
    }  # fmt: skip
    for name, of in arrays.items():
        finished(folder, name, of)
    (tmp_path / "run" / "second" / "seed0").mkdir(parents=True)
    records = [
        number(cell, seed, metric=f"accuracy/t={t}", value=1 - t - seed / 10, sigma=t)
        for cell in ("first", "second") for seed in (0, 1) for t in (0.2, 0.5, 0.8)
    ]  # fmt: skip
    write_tables(tmp_path / "tables", results(*records))
    return tmp_path / "run"


def drawn(run, families=(), pictures=()):
    return write_figures(run, run.parent / "tables", ["second", "first"], families, pictures)


def test_a_family_is_drawn_as_means_over_seeds_with_a_line_a_cell(run):
    (path,) = drawn(run, ["accuracy/t=*", "mse/denoise/t=*"])  # the other was not measured
    assert path.name == "accuracy-t.png"
    with np.load(path.with_suffix(".npz")) as arrays:
        assert list(arrays["rows"]) == ["second", "first"]
        np.testing.assert_allclose(arrays["x"], [0.2, 0.5, 0.8])
        np.testing.assert_allclose(arrays["values"], np.tile([0.75, 0.45, 0.15], (2, 1)))


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_its_arrays_beside_it(run, name):
    (path,) = drawn(run, pictures=[name])
    with Image.open(path) as image, np.load(path.with_suffix(".npz")) as arrays:
        assert min(image.size) > 100
        assert arrays.files
        assert all(np.isfinite(arrays[key]).all() for key in arrays.files if arrays[key].dtype.kind == "f")


def test_samples_of_all_scales_stand_below_one_another_in_order(run):
    (path,) = drawn(run, pictures=["samples"])
    with np.load(path.with_suffix(".npz")) as arrays:
        assert arrays.files == ["00 first@1", "01 first@3"]
        assert {arrays[key].shape for key in arrays.files} == {(10, 8, 8, 1)}


def test_gradients_are_shown_from_least_to_most_of_each_picture(run):
    (path,) = drawn(run, pictures=["alignment"])
    with np.load(path.with_suffix(".npz")) as arrays:
        shown = [arrays[key] for key in ("01 first, t 0.3, sigma 0.1", "03 first, t 0.35, sigma 0.14")]
        assert not np.array_equal(*shown)
        for pictures in shown:
            np.testing.assert_array_equal(pictures.min((1, 2, 3)), 0)
            np.testing.assert_array_equal(pictures.max((1, 2, 3)), 1)


def test_fields_are_of_one_class_and_the_true_one_comes_first(run):
    (path,) = drawn(run, pictures=["gradient-fields"])
    with np.load(path.with_suffix(".npz")) as arrays, np.load(run / "first/seed0/gradients.npz") as answers:
        assert list(arrays["rows"]) == ["true gradient", "first"]
        np.testing.assert_array_equal(arrays["places"], answers["grid_places"][:6])
        expected = [answers["grid_truth"][:, :6], answers["grid_estimate"][:, :6]]
        np.testing.assert_array_equal(arrays["arrows"], expected)


def test_cells_of_other_data_stand_below_their_own_true_field(run):
    with np.load(run / "first/seed0/gradients.npz") as answers:
        other = {**answers, "grid_truth": 2 * answers["grid_truth"]}
    finished(run / "second" / "seed0", "gradients", other)
    (path,) = drawn(run, pictures=["gradient-fields"])
    with np.load(path.with_suffix(".npz")) as arrays:
        assert list(arrays["rows"]) == ["true gradient", "second", "true gradient", "first"]
        assert list(arrays["truth"]) == [0, 0, 2, 2]
        np.testing.assert_array_equal(arrays["arrows"][0], 2 * arrays["arrows"][2])


def test_gradients_of_images_have_no_field(run):
    finished(run / "first" / "seed0", "gradients", {"test_truth": np.zeros((1, 5, 64)), "sigmas": np.ones(1)})
    assert drawn(run, pictures=["gradient-fields"]) == []


def test_no_change_is_grey_in_the_difference(run):
    folder = run / "first" / "seed0"
    with np.load(folder / "counterfactual@1.npz") as arrays:
        np.savez(folder / "counterfactual@1.npz", **{**arrays, "changed": arrays["original"]})
    (path,) = drawn(run, pictures=["counterfactuals"])
    with np.load(path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["03 difference"], 0.5)


def test_files_that_a_failed_stage_left_behind_are_not_drawn(run):
    folder = run / "first" / "seed0"
    (folder / "stages" / "curves.json").unlink()
    np.savez(folder / "curves.npz", errors=np.zeros(3))
    assert drawn(run, pictures=["denoised", "log-levels"]) == []


def test_pictures_of_different_sizes_stand_below_one_another(run):
    finished(run / "second" / "seed0", "diagnostics", {"confusion": RNG.random((12, 12))})
    (path,) = drawn(run, pictures=["confusion"])
    with np.load(path.with_suffix(".npz")) as arrays:
        assert [arrays[key].shape for key in arrays.files] == [(1, 12, 12, 1), (1, 10, 10, 1)]


def test_steps_of_a_sampler_that_evaluates_nothing_have_no_picture(run):
    finished(run / "first" / "seed0", "steps@1", {"labels": np.zeros(10)})
    assert drawn(run, pictures=["steps"]) == []


def test_the_ratio_of_errors_is_to_those_of_the_first_cell_at_the_same_noise(run):
    """Two processes, whose levels lie at other places: errors that follow one power of the noise have one ratio."""
    for cell, sigmas, factor in (("second", [0.1, 1.0, 10.0], 1.0), ("first", [0.03, 0.2, 3.0], 2.0)):
        sigmas = np.array(sigmas)
        errors = factor * sigmas[:, None] ** -0.5 * np.ones((3, 30))
        finished(run / cell / "seed0", "curves", {"times": sigmas / 20, "sigmas": sigmas, "errors": errors})
    (path,) = drawn(run, pictures=["log-error-ratio"])
    with np.load(path.with_suffix(".npz")) as arrays:
        assert list(arrays["rows"]) == ["second", "first"]
        assert arrays["across"] == "noise level, sigma / alpha"
        np.testing.assert_allclose(arrays["x"], [0.1, 0.2, 1.0, 3.0, 10.0])
        nan = np.nan  # the first cell has nothing at .03 to compare with
        expected = [[0, nan, 0, nan, 0], [nan, np.log(2), nan, np.log(2), nan]]
        np.testing.assert_allclose(arrays["values"], expected, atol=1e-12)


def test_steps_by_class_are_the_mean_probabilities_of_what_was_asked(run):
    (path,) = drawn(run, pictures=["steps-by-class"])
    with np.load(path.with_suffix(".npz")) as arrays, np.load(run / "first" / "seed0" / "steps@1.npz") as steps:
        shown = arrays["00 first@1"]
        assert shown.shape == (1, 5, 20, 1)
        np.testing.assert_allclose(shown[0, 3, :, 0], (steps["probabilities"][:, [3, 8], 3]).mean(1))


def test_the_abscissa_has_its_own_name(run):
    accuracy, levels = drawn(run, ["accuracy/t=*"], ["log-levels"])
    for path, name in ((accuracy, "noise level, sigma / alpha"), (levels, "noise level, share of all")):
        with np.load(path.with_suffix(".npz")) as arrays:
            assert arrays["across"] == name
