"""Console scripts `lightning` and `diffclass`: LightningCLI over the benchmark's methods and data sets."""

import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import INTERRUPTED, TERMINATED, InputError, one_line

CLASS_PATHS = ("methods.", "datamodules.", "benchmark.", "torch.", "lightning.")
"""Packages whose classes a configuration may name; naming a class imports its module."""


def main(args: list[str] | None = None) -> None:
    """Run the command line; exits with the benchmark's exit codes."""
    arguments = sys.argv[1:] if args is None else args
    stop = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: (stop.set(), signal.signal(signal.SIGINT, previous)))
    from benchmark.callbacks import Stopped

    try:
        cli = run(arguments, stop)
        if cli.trainer.received_sigterm:
            sys.exit(TERMINATED)
    except Stopped as stopped:
        _fail(f"{stopped}; go on with --ckpt_path=FILE", INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (InputError, FileNotFoundError, ValueError, TypeError) as error:
        if os.environ.get("DIFFCLASS_DEBUG"):
            raise
        _fail(innermost(error), getattr(error, "code", 2))
    except FloatingPointError as error:
        _fail(str(error), 4)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def run(arguments: Sequence[str], stop: threading.Event) -> Any:
    """Parse ``arguments`` with a subcommand and carry it out."""
    from benchmark.lightning_cli import BenchmarkCLI

    refuse_foreign_classes(arguments)
    return BenchmarkCLI(args=list(arguments), stop=stop.is_set)


def build(arguments: Sequence[str], stop: Any = lambda: False) -> Any:
    """A CLI with ``trainer``, ``model`` and ``datamodule`` built from ``arguments``, and nothing run."""
    from benchmark.lightning_cli import BenchmarkCLI

    refuse_foreign_classes(arguments)
    try:
        return BenchmarkCLI(args=list(arguments), stop=stop, run=False)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise InputError(innermost(error)) from error


def refuse_foreign_classes(arguments: Sequence[str]) -> None:
    """Refuse class paths outside the allowed packages before anything imports them.

    Raises:
        InputError: Naming the first such class path.
    """
    texts = [*arguments]
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument in ("--config", "-c"):
            texts += _config_texts(Path(following))
        elif argument.startswith("--config="):
            texts += _config_texts(Path(argument.removeprefix("--config=")))
    for text in texts:
        for class_path in re.findall(r"class_path\W*[:=]\s*['\"]?([\w.]+)", text):
            if "." in class_path and not class_path.startswith(CLASS_PATHS):
                allowed = ", ".join(prefix.rstrip(".") for prefix in CLASS_PATHS)
                raise InputError(f"class_path {class_path} is outside the allowed packages ({allowed})")


def _config_texts(path: Path, seen: frozenset[Path] = frozenset()) -> list[str]:
    """The text of a configuration and of the files it includes."""
    if not path.is_file() or path in seen:
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    included = re.findall(r":\s*['\"]?([\w./-]+\.ya?ml)\b", text)
    nested = [_config_texts(path.parent / name, seen | {path}) for name in included]
    return [text, *(t for texts in nested for t in texts)]


def innermost(error: BaseException) -> str:
    """The cause at the bottom of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


if __name__ == "__main__":
    main()
