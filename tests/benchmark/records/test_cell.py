"""Records of a cell from its files."""

from pathlib import Path

import numpy as np

from benchmark.records.generation import of_task
from benchmark.suite.plan import RECORDS
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.source_code import _closure

ROOT = Path(__file__).parents[3]


def test_classes_of_a_task_have_the_probability_of_the_classes_they_are_made_of():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]])
    np.testing.assert_allclose(of_task(probabilities, np.array([0, 1, 0, 1])), [[0.4, 0.6], [0.9, 0.1]])
    np.testing.assert_array_equal(of_task(probabilities, np.arange(4)), probabilities)


def test_the_key_of_records_covers_all_code_that_computes_them():
    files = [*ROOT.glob("benchmark/records/*.py"), ROOT / "benchmark" / "metrics" / "classification.py"]
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.stem != "__init__"}
    assert {"benchmark.records.classification", "benchmark.records.generation"} < modules
    of_questions = [question.records.rpartition(".")[0] for question in QUESTIONS.values()]
    assert modules <= _closure(frozenset([RECORDS, *of_questions]))
