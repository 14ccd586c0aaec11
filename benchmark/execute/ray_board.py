"""Messages between jobs on a Ray cluster and the driver that started them."""

import contextlib
import threading
import uuid
from typing import Any

import ray
from ray.exceptions import RayError


class Board:
    """Actor between jobs and the driver: it passes on messages of jobs and the driver's request to stop.

    It may be restarted, and a reply may be lost: messages are kept until the driver confirms them, and calls may be
    repeated.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.news: list[dict[str, Any]] = []
        self.taken = 0
        self.stop = False

    def tell(self, message: dict[str, Any] | None) -> bool:
        """Add a message; returns whether to stop."""
        if message is not None:
            self.news.append(message)
        return self.stop

    def read(self, stop: bool, name: str, had: int) -> tuple[str, int, list[dict[str, Any]]]:
        """Set the request to stop, and confirm the first ``had`` messages of board ``name``.

        Returns:
            Name of this board, number of all messages so far, and the unconfirmed ones.
        """
        self.stop = self.stop or stop
        if name == self.name and had > self.taken:
            self.news, self.taken = self.news[had - self.taken :], had
        return self.name, self.taken + len(self.news), list(self.news)


class Line:
    """A job's connection to the board, in place of the queue and shared flag of one machine.

    Args:
        board: Handle of the actor.
        every: Seconds between two calls; each sends the newest message.
    """

    def __init__(self, board: Any, every: float = 1.0) -> None:
        self.value, self._board, self._every = False, board, every
        self._newest: dict[str, Any] | None = None
        self._closed = threading.Event()

    def put(self, message: dict[str, Any]) -> None:
        """Send a message with the next call, unless a newer one replaces it."""
        self._newest = message

    def tell(self, message: dict[str, Any] | None) -> None:
        """Send a message now."""
        with contextlib.suppress(RayError):  # the board restarts, or the driver is gone
            self.value = ray.get(self._board.tell.remote(message), timeout=30)

    def __enter__(self) -> "Line":
        threading.Thread(target=self._exchange, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._closed.set()

    def _exchange(self) -> None:
        while not self._closed.wait(self._every):
            message, self._newest = self._newest, None
            self.tell(message)
