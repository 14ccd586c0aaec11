"""The command that measures rates prints an entry of their file."""

import pytest
import yaml

from benchmark.cost.__main__ import main
from benchmark.cost.rates import Rates
from benchmark.suite.fields import build


@pytest.mark.slow
def test_an_entry_is_printed_as_the_file_has_them(capsys):
    assert main(["--rounds", "1", "--width", "8"]) == 0
    ((kind, entry),) = yaml.safe_load(capsys.readouterr().out).items()
    assert kind in ("cpu", "gpu")
    found = build(Rates, entry, kind)
    assert found.measured
    assert min(found.train, found.train_half, found.evaluate, found.operator) > 0


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rounds", "x"], ["--width", "3"], ["--widht", "8"]])
def test_bad_usage_is_one_line(words, capsys):
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
