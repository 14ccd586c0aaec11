"""python -m benchmark.device_process: one process of a training on several devices, started by torchrun."""

import sys

from benchmark import cli
from benchmark.training.torchrun import Messages


def main(words: list[str]) -> None:
    """Run `lightning` with ``words``, after the file of messages and the identifier of the parent process."""
    path, parent, *arguments = words
    cli.main(arguments, watchers=[Messages(path, int(parent))])


if __name__ == "__main__":
    main(sys.argv[1:])
