"""A window of requests in flight on a running event loop; results are handed out as they complete or in order.

This needs no task and no thread: a call begins a request, and the request ends with a call of its waiter. So an
iteration may stop at any point, on any loop, without leaving a task behind. Requests that are then in flight complete
into memory that is discarded.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from _uring.errors import without_frames
from _uring.event_loops import bind, current_key
from _uring.waiters import Waiter
from rangeio.errors import Error

if TYPE_CHECKING:
    from _uring import Buffer


class _RequestWaiter:
    """The waiter of one request."""

    __slots__ = ("_index", "_window")

    def __init__(self, window: "RequestWindow", index: int) -> None:
        self._window, self._index = window, index

    def done(self) -> bool:
        return self._window.closed

    def set_result(self, value: Any) -> None:
        self._window.complete(self._index, value)

    def set_exception(self, error: BaseException) -> None:
        self._window.complete(self._index, error)


class RequestWindow:
    """Calls `begin(index, waiter)` for each index below `count`, with at most `depth` in flight or not handed out yet.

    at_once: returns the result of an index if that needs no waiting, else None. `now` calls it while none is in flight.
    yield_if_due: awaited before each result; yields to other tasks now and then, because requests served by the page
    cache never wait. ordered: hand out in order. Iterate on one loop, one `next` at a time. A failed request is handed
    out as its Error.
    """

    def __init__(
        self,
        begin: Callable[[int, Waiter], None],
        count: int,
        yield_if_due: Callable[[], Awaitable[object]],
        *,
        at_once: "Callable[[int], Buffer | None]" = lambda _: None,
        depth: int,
        ordered: bool = False,
    ) -> None:
        self.closed = False
        self._begin = begin
        self._at_once = at_once
        self._count = count
        self._yield_if_due = yield_if_due
        self._depth = depth
        self._ordered = ordered
        self._begun = self._handed_out = 0
        self._completed: dict[int, Buffer | BaseException] = {}
        self._waiter: Any = None
        self._waiting = False

    def now(self) -> "tuple[int, Buffer] | None":
        """The next (index, result), if that needs no waiting and no request."""
        index = self._handed_out
        if index != self._begun or index >= self._count or self.closed or self._waiting:
            return None
        try:
            result = self._at_once(index)
        except Error:
            return None  # the request gets it, too
        if result is None:
            return None
        self._begun = self._handed_out = index + 1
        return index, result

    async def next(self) -> "tuple[int, Buffer | Error] | None":
        """The next (index, result), or None after the last."""
        if self._waiting:
            raise RuntimeError("another task is already waiting for this iterator")
        self._waiting = True
        try:
            await self._yield_if_due()
            while not self.closed and self._handed_out < self._count:
                self._begin_more()
                index = self._ready()
                if index is not None:
                    return index, self._take(index)
                await self._next_completion()
        finally:
            self._waiting = False
        self.close()
        return None

    def _take(self, index: int) -> "Buffer | Error":
        self._handed_out += 1
        result = self._completed.pop(index)
        if isinstance(result, BaseException) and not isinstance(result, Error):
            self.close()
            try:
                raise result
            finally:
                del result  # breaks the cycle of frame and traceback
        return result

    def close(self) -> None:
        """Begin no more requests, and discard the results of those in flight."""
        self.closed = True
        self._completed.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def complete(self, index: int, result: Any) -> None:
        """Record the result of a request. Called on the loop's thread."""
        self._completed[index] = without_frames(result) if isinstance(result, BaseException) else result
        if self._waiter is not None and not self._waiter.done() and self._ready() is not None:
            self._waiter.set_result(None)

    def _begin_more(self) -> None:
        """Begin requests up to the window. While requests complete at once, one is enough: there is no wait to hide."""
        most = min(self._count, self._handed_out + self._depth)
        while self._begun < most:
            if (
                self._completed
                and self._begun - self._handed_out == len(self._completed)
                and self._ready() is not None
            ):
                return
            index = self._begun
            self._begun = index + 1
            try:
                self._begin(index, _RequestWaiter(self, index))
            except Error as error:
                self.complete(index, error)

    def _ready(self) -> int | None:
        if self._ordered:
            return self._handed_out if self._handed_out in self._completed else None
        return next(iter(self._completed), None)

    async def _next_completion(self) -> None:
        """Wait until a result can be handed out."""
        binding: Any = bind(current_key())
        self._waiter = binding.waiter(None)
        try:
            await binding.wait(self._waiter)
        finally:
            self._waiter = None
