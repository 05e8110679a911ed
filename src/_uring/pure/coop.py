"""The twin of `coop` in pure Python: awaitables of available results, and a cooperative budget for them.

After a number of results, bytes, or some time, the task that awaits the next one yields to the loop. There is no
queue: once the time of a loop iteration is used up, each task gets one more result in it.
"""

import time
from collections.abc import Awaitable, Generator
from typing import Any

from _uring.errors import is_failure
from _uring.event_loops import after_checkpoint
from _uring.waiters import Later

# As in `coop`.
_BUDGET_HITS = 64
_BUDGET_BYTES = 4 << 20
_ITERATION_S = 0.001


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
        finally:  # its traceback references this frame: break the cycle
            del error
        yield  # makes this a generator


class _Budget:
    """The results returned in this loop iteration. Per process, as in `coop`."""

    def __init__(self) -> None:
        self.iteration = self.hits = self.nbytes = 0
        self.began = 0.0
        self.spent = False

    def begin(self) -> None:
        self.iteration += 1
        self.hits = self.nbytes = 0
        self.spent = False

    def spend(self, nbytes: int) -> bool:
        """Count one result. True if the task has to yield to the loop."""
        now = time.monotonic()
        if self.hits == 0 and not self.spent:
            self.began = now
        self.hits += 1
        self.nbytes += nbytes
        self.spent = self.spent or now - self.began > _ITERATION_S
        return self.spent or self.hits >= _BUDGET_HITS or self.nbytes >= _BUDGET_BYTES


_budget = _Budget()


class _Checkpoint:
    """Yields to the loop once. After it, the next iteration has begun."""

    __slots__ = ("_iteration",)

    def __init__(self) -> None:
        self._iteration = _budget.iteration
        _budget.hits = _budget.nbytes = 0

    def __await__(self) -> Generator[Any, Any, None]:
        yield from after_checkpoint(None).__await__()
        if self._iteration == _budget.iteration:  # the first task of the new iteration
            _budget.begin()


def ready(value: Any, nbytes: int = 0) -> Awaitable[Any]:
    """An awaitable of an available value. nbytes: its size."""
    return Later(_Checkpoint(), value) if _budget.spend(nbytes) else Ready(value)


def refused(error: BaseException) -> Awaitable[Any]:
    """An awaitable that raises `error`, if a read may end with it. Other exceptions are raised here."""
    if not is_failure(error):
        raise error
    return Later(_Checkpoint(), error=error) if _budget.spend(0) else Ready(None, error)


def yield_if_due() -> Awaitable[None]:
    """An awaitable of None, for a coroutine that does not know yet whether it will suspend."""
    return ready(None)
