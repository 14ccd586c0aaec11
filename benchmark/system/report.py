"""Progress of work, reported to whoever waits for it."""

from typing import Protocol


class Report(Protocol):
    """Receives how far a stage is: what is done, what there is to do (0 if unknown), and the loss of a training."""

    def __call__(self, stage: str, done: int, total: int, loss: float | None = None) -> None: ...
