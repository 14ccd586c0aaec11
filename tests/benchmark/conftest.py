"""Refusals of commands."""

import pytest

from runs import command


@pytest.fixture
def refusal(capsys):
    """The message with which a command is refused: exit code 2 and this line alone on standard error."""

    def refusal(*words):
        code = command(*words)
        captured = capsys.readouterr()
        assert code == 2, captured
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err + captured.out
        return captured.err.removeprefix("error: ").strip()

    return refusal
