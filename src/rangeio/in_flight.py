"""Requests under way on a running event loop, handed out as they complete or in order.

No task and no thread is made for it: a request is begun by a call and ends by a call of its waiter, so whoever iterates
can stop at any point, under any loop, and leaves nothing behind that runs. What is then under way completes into memory
that nobody sees.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from _uring.errors import without_frames
from _uring.event_loops import bind, current_key
from _uring.waiters import Waiter
from rangeio.errors import Error

if TYPE_CHECKING:
    from _uring import Buffer


class _Slot:
    """The waiter of one request."""

    __slots__ = ("_flight", "_index")

    def __init__(self, flight: "Flight", index: int) -> None:
        self._flight, self._index = flight, index

    def done(self) -> bool:
        return self._flight.closed

    def set_result(self, value: Any) -> None:
        self._flight.land(self._index, value)

    def set_exception(self, error: BaseException) -> None:
        self._flight.land(self._index, error)


class Flight:
    """`begin(index, waiter)` for each index below `count`, at most `depth` under way or not handed out yet.

    turn: awaited before each is handed out; gives other tasks their turn now and then, because requests that the page
    cache answers never wait by themselves. ordered: hand out in order. Iterate on one loop, one `next` at a time; a
    failed request comes as its Error.
    """

    def __init__(
        self,
        begin: Callable[[int, Waiter], None],
        count: int,
        turn: Callable[[], Awaitable[object]],
        *,
        depth: int,
        ordered: bool = False,
    ) -> None:
        self.closed = False
        self._begin = begin
        self._count = count
        self._turn = turn
        self._depth = depth
        self._ordered = ordered
        self._begun = self._given = 0
        self._landed: dict[int, Buffer | BaseException] = {}
        self._waiter: Any = None
        self._waiting = False

    async def next(self) -> "tuple[int, Buffer | Error] | None":
        """The next one, or None after the last."""
        if self._waiting:
            raise RuntimeError("this iteration is waited for by another task")
        self._waiting = True
        try:
            await self._turn()
            while not self.closed and self._given < self._count:
                self._pump()
                index = self._ready()
                if index is not None:
                    return index, self._take(index)
                await self._landing()
        finally:
            self._waiting = False
        self.close()
        return None

    def _take(self, index: int) -> "Buffer | Error":
        self._given += 1
        result = self._landed.pop(index)
        if isinstance(result, BaseException) and not isinstance(result, Error):
            self.close()
            try:
                raise result
            finally:
                del result  # its traceback holds this frame: let neither hold the other
        return result

    def close(self) -> None:
        """Begin no more, and forget what is under way."""
        self.closed = True
        self._landed.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def land(self, index: int, result: Any) -> None:
        """A request has completed; called in the loop's thread."""
        self._landed[index] = without_frames(result) if isinstance(result, BaseException) else result
        if self._waiter is not None and not self._waiter.done() and self._ready() is not None:
            self._waiter.set_result(None)

    def _pump(self) -> None:
        """Begin what may be under way. While requests are answered at once, one is enough: there is no wait to hide."""
        most = min(self._count, self._given + self._depth)
        while self._begun < most:
            if self._landed and self._begun - self._given == len(self._landed) and self._ready() is not None:
                return
            index = self._begun
            self._begun = index + 1
            try:
                self._begin(index, _Slot(self, index))
            except Error as error:
                self.land(index, error)

    def _ready(self) -> int | None:
        if self._ordered:
            return self._given if self._given in self._landed else None
        return next(iter(self._landed), None)

    async def _landing(self) -> None:
        """Until something can be handed out."""
        binding: Any = bind(current_key())
        self._waiter = binding.waiter(None)
        try:
            await binding.wait(self._waiter)
        finally:
            self._waiter = None
