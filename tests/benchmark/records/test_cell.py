"""Records of a cell from its files."""

import numpy as np

from benchmark.records.generation import of_task


def test_classes_of_a_task_have_the_probability_of_the_classes_they_are_made_of():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]])
    np.testing.assert_allclose(of_task(probabilities, np.array([0, 1, 0, 1])), [[0.4, 0.6], [0.9, 0.1]])
    np.testing.assert_array_equal(of_task(probabilities, np.arange(4)), probabilities)
