"""A store for tests: it counts its calls, and answers wrongly, late or not at all if it is told to."""

import threading
from collections.abc import Callable
from typing import Any

ANSWER_S = 30
"""How long a call that is held waits for the test; only a failed test lets it pass."""


class Scripted:
    """Bytes with `pread(n, offset)`. answer: makes the answer from (offset, n). hold: calls wait until `release`."""

    def __init__(
        self, data: bytes, answer: "Callable[[int, int], Any] | None" = None, *, hold: bool = False
    ) -> None:
        self.data = data
        self.calls: list[tuple[int, int]] = []
        self.now = self.most = 0
        self._answer = answer or (lambda offset, n: self.data[offset : offset + n])
        self._free = threading.Event()
        self._changed = threading.Condition()
        if not hold:
            self._free.set()

    def pread(self, n: int, offset: int) -> Any:
        with self._changed:
            self.calls.append((offset, n))
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()
        try:
            assert self._free.wait(ANSWER_S), "the test has not released it"
            return self._answer(offset, n)
        finally:
            with self._changed:
                self.now -= 1
                self._changed.notify_all()

    def release(self) -> None:
        """Let all calls pass, those in progress and those to come."""
        self._free.set()

    def wait_for(self, now: int) -> None:
        """Until so many calls are in progress."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.now == now, ANSWER_S), f"{self.now} calls in progress"
