"""Console scripts `lightning` and `diffclass`: LightningCLI over the benchmark's methods and data sets."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmark.errors import (
    INCOMPLETE,
    INTERRUPTED,
    UNUSABLE_INPUT,
    InputError,
    Stopped,
    failure,
    innermost,
    out_of_memory,
    tell,
)
from benchmark.screen import protect
from benchmark.system.surroundings import working_folder


def main(args: list[str] | None = None, watchers: Sequence[Any] = ()) -> None:
    """Run the command line with further callbacks; exits with the benchmark's exit codes."""
    protect()
    arguments = sys.argv[1:] if args is None else args
    signals: list[int] = []
    ranks = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ]
    first = ranks[:1] in ([], ["0"])  # of one training's processes, all of which receive the signal

    if first and sys.stderr.isatty():
        tell("reading the configuration")
    try:
        working_folder()  # where it was deleted, a library of torch's ends the process with a message of its own
        from benchmark.training.build import run  # torch, which takes seconds
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except InputError as error:
        _fail(str(error), error.code)

    def on_signal(number: int, frame: Any) -> None:
        if signals or "fit" not in arguments:
            sys.exit(128 + number)  # nothing to save, or asked twice
        signals.append(number)
        if first:
            tell("stopping: the state is saved after this step (again to stop at once)")

    # Lightning's own handler of SIGUSR1 saves inside the signal, in the middle of a step of the optimiser even.
    near_the_end = (signal.SIGUSR1,) if "SLURM_JOB_ID" in os.environ else ()
    caught = (signal.SIGINT, signal.SIGTERM, *near_the_end)
    before = {number: signal.signal(number, on_signal) for number in caught}
    try:
        run(arguments, stop=lambda: bool(signals), watchers=watchers)
    except Stopped as stopped:
        if first and signals[:1] == [signal.SIGUSR1]:
            _requeue()
        _fail(str(stopped) if first else "", 128 + (signals[0] if signals else signal.SIGTERM))
    except InputError as error:
        if os.environ.get("DIFFCLASS_DEBUG"):
            raise
        _fail(innermost(error), error.code)
    except (OSError, ValueError, MemoryError, OverflowError, ZeroDivisionError) as error:
        if os.environ.get("DIFFCLASS_DEBUG"):
            raise
        _fail(_told(error), UNUSABLE_INPUT)
    except FloatingPointError as error:
        _fail(str(error), INCOMPLETE)
    except RuntimeError as error:
        if os.environ.get("DIFFCLASS_DEBUG") or not out_of_memory(error):
            raise
        _fail(failure(error), INCOMPLETE)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _requeue() -> None:
    """Put this Slurm job into the queue again; its state is saved."""
    array, number = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{number}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        tell(f"error: the job could not be requeued: {error}")


def _told(error: Exception) -> str:
    """The message of an error that is not ours; an operating system's names its file."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; name another file or folder"
    if isinstance(error, ZeroDivisionError):
        return "a setting is 0 that something is divided by (DIFFCLASS_DEBUG=1 shows where)"
    if isinstance(error, MemoryError):
        return f"not enough memory: {innermost(error)}; make batches or networks smaller"
    return innermost(error) + ("" if isinstance(error, OSError) else " (DIFFCLASS_DEBUG=1 shows where)")


def _fail(message: str, code: int) -> None:
    if message:
        tell(f"error: {message}")
    sys.exit(code)


if __name__ == "__main__":
    main()
