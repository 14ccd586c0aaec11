"""Records of a cell from its files."""

import numpy as np

from benchmark.evaluate_cell import _of_task, _telescoping


def test_classes_of_a_task_have_the_probability_of_the_classes_they_are_made_of():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]])
    np.testing.assert_allclose(_of_task(probabilities, np.array([0, 1, 0, 1])), [[0.4, 0.6], [0.9, 0.1]])
    np.testing.assert_array_equal(_of_task(probabilities, np.arange(4)), probabilities)


def test_log_means_of_the_density_ratios_add_up_and_are_not_lost_to_overflow():
    steps = np.log(np.array([[1.0, 2.0], [3.0, 2.0]])) + np.array([0.0, 2000.0])
    found = _telescoping(steps)
    np.testing.assert_allclose(found.value, np.log(2) + np.log(2) + 2000)
    np.testing.assert_allclose(found.stderr, np.sqrt(2 / 2 / 4))  # variance 2 of the first, none of the second
    assert found.n == 2
