"""The twin of `coop` in pure Python: awaitables of what is there already, and how long they may hold an event loop.

After some of them, some bytes or some time, the task that awaits the next one gives the loop a turn. There is no queue:
once the time of a turn is over, every task gets one more of them in it.
"""

import time
from collections.abc import Awaitable, Generator
from typing import Any

from _uring.errors import is_failure
from _uring.event_loops import after_checkpoint
from _uring.waiters import Later

# As in `coop`.
_HITS_PER_GO = 64
_BYTES_PER_GO = 4 << 20
_TURN_S = 0.001


class Ready:
    """An awaitable that is done: it has a value, or raises."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: Any, error: BaseException | None = None) -> None:
        self._value, self._error = value, error

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._error is None:
            return self._value
        error, self._error = self._error, None
        try:
            raise error
        finally:  # its traceback holds this frame: let neither hold the other
            del error
        yield  # makes this a generator


class _Go:
    """What was handed out in this turn of the loop; of the process, as in `coop`."""

    def __init__(self) -> None:
        self.turn = self.hits = self.nbytes = 0
        self.began = 0.0
        self.spent = False

    def begin(self) -> None:
        self.turn += 1
        self.hits = self.nbytes = 0
        self.spent = False

    def is_over(self, nbytes: int) -> bool:
        """Account for one result; whether the loop is to have a turn."""
        now = time.monotonic()
        if self.hits == 0 and not self.spent:
            self.began = now
        self.hits += 1
        self.nbytes += nbytes
        self.spent = self.spent or now - self.began > _TURN_S
        return self.spent or self.hits >= _HITS_PER_GO or self.nbytes >= _BYTES_PER_GO


_go = _Go()


class _Turn:
    """After it the next turn has begun."""

    __slots__ = ("_in",)

    def __init__(self) -> None:
        self._in = _go.turn
        _go.hits = _go.nbytes = 0

    def __await__(self) -> Generator[Any, Any, None]:
        yield from after_checkpoint(None).__await__()
        if self._in == _go.turn:  # the first that was left in that turn to go on in the next
            _go.begin()


def ready(value: Any, nbytes: int = 0) -> Awaitable[Any]:
    """An awaitable of a value that is there, of so many bytes."""
    return Later(_Turn(), value) if _go.is_over(nbytes) else Ready(value)


def refused(error: BaseException) -> Awaitable[Any]:
    """An awaitable that raises `error`, if that is one that reads end with; anything else is raised here."""
    if not is_failure(error):
        raise error
    return Later(_Turn(), error=error) if _go.is_over(0) else Ready(None, error)


def yield_if_due() -> Awaitable[None]:
    """An awaitable of None, for who has yet to find out what he has."""
    return ready(None)
