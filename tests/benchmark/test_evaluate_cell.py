"""Records of a cell from its files."""

from pathlib import Path

import numpy as np

from benchmark.evaluate_cell import _gradients, _telescoping
from benchmark.generation_records import of_task
from benchmark.outputs import save_arrays
from benchmark.plan import Job
from benchmark.suite import Cell, Protocol


def gradient_records(folder, estimate, truth, score):
    """Values of the gradients' metrics by name and scaling, from the arrays of one noise level."""
    config = {"model": {"class_path": "methods.noisy_classifier.NoisyClassifierGuidance"}}
    job = Job(Cell("cell", config="a.yaml"), 0, "evaluate", Path(folder), (), Path(folder), config=config)
    arrays = {"estimate": estimate, "truth": truth, "score": score}
    save_arrays(folder / "gradients.npz", **{k: v[None] for k, v in arrays.items()}, sigmas=np.array([7.5]))
    records = list(_gradients(job, Protocol()))
    assert {record.protocol["sigma"] for record in records} == {7.5}
    return {(record.metric, record.protocol.get("scaling")): record.value for record in records}


def test_a_gradient_that_is_only_too_short_is_perfect_up_to_its_best_scale(tmp_path):
    rng = np.random.default_rng(0)
    truth, score = rng.normal(size=(2, 50, 2))
    found = gradient_records(tmp_path, 0.5 * truth, truth, score)
    np.testing.assert_allclose(found["gradient/mse", "none"], np.square(0.5 * truth).sum(1).mean())
    np.testing.assert_allclose(found["gradient/mse", "best"], 0, atol=1e-12)
    np.testing.assert_allclose(found["gradient/cosine", None], 1)
    np.testing.assert_allclose(found["score/cosine", "best"], 1)
    assert found["score/cosine", "none"] < 1


def test_the_best_scale_is_the_least_squares_one_and_a_zero_gradient_points_nowhere(tmp_path):
    truth, score = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    estimate = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = gradient_records(tmp_path, estimate, truth, score)
    np.testing.assert_allclose(found["gradient/mse", "best"], (0.25 + 0.25 + 4) / 2)  # scale 1/2
    np.testing.assert_allclose(found["gradient/cosine", None], 2**-0.5 / 2)
    nothing = gradient_records(tmp_path, 0 * estimate, truth, score)
    assert nothing["gradient/mse", "best"] == nothing["gradient/mse", "none"] == 2.5


def test_classes_of_a_task_have_the_probability_of_the_classes_they_are_made_of():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]])
    np.testing.assert_allclose(of_task(probabilities, np.array([0, 1, 0, 1])), [[0.4, 0.6], [0.9, 0.1]])
    np.testing.assert_array_equal(of_task(probabilities, np.arange(4)), probabilities)


def test_log_means_of_the_density_ratios_add_up_and_are_not_lost_to_overflow():
    steps = np.log(np.array([[1.0, 2.0], [3.0, 2.0]])) + np.array([0.0, 2000.0])
    found = _telescoping(steps)
    np.testing.assert_allclose(found.value, np.log(2) + np.log(2) + 2000)
    np.testing.assert_allclose(found.stderr, np.sqrt(2 / 2 / 4))  # variance 2 of the first, none of the second
    assert found.n == 2
