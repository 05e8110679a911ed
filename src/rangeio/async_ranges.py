"""The results of many ranges as they complete, on an event loop."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from _uring import yield_if_due
from rangeio.errors import Error
from rangeio.events import begun
from rangeio.in_flight import RequestWindow
from rangeio.ranges import Layout
from rangeio.results import Counters, Cutting, OnError
from rangeio.service import Source

_T = TypeVar("_T")

# Default number of requests in flight; the same as of the native iteration.
_DEPTH = 32


class AsyncRanges(AsyncIterator[tuple[int, _T]]):
    """Async iterator of (index, result), returned by `AsyncReader.iter_ranges`.

    The first `anext` begins the reads, on the loop that runs at that time. The iteration may stop at any point:
    `aclose`, or deleting it, stops the reads.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[tuple[Source, Layout]]],
        counters: Counters,
        on_error: OnError,
        chunk: int | None,
        concurrent: int | None,
    ) -> None:
        """begin: opens the object if necessary; returns the Source and the layout to request."""
        self._begin = begin
        self._counters = counters
        self._on_error = on_error
        self._chunk = chunk
        self._depth = concurrent or _DEPTH
        self._source: Source | None = None
        self._cutting: Cutting | None = None
        self._window: RequestWindow | None = None
        self._ready: list[tuple[int, Any]] = []
        self._ended = False

    async def in_order(self) -> list[_T]:
        """All results, in the order of the ranges. Who listens is told, as of any call that reads many ranges."""
        began, of_reader = begun(), self._counters
        if began:
            self._counters = Counters()  # of this call
        found = {index: result async for index, result in self}
        if began and self._source is not None:
            of_reader.add(self._counters)
            self._counters.tell(self._source.path, len(found), began)
        return [found[index] for index in range(len(found))]

    def __aiter__(self) -> "AsyncRanges[_T]":
        return self

    async def __anext__(self) -> tuple[int, _T]:
        if self._ready or self._ended:
            await yield_if_due()  # as RequestWindow does for each result it hands out
        try:
            while not self._ready and not self._ended:
                await self._next()
        except Error:
            self.end()
            raise
        if self._ended:
            raise StopAsyncIteration
        return self._ready.pop()

    async def _next(self) -> None:
        """Get more results, or end the iteration."""
        if self._source is None:
            self._source, layout = await self._begin()
            self._launch(self._source, Cutting(layout, self._on_error, self._counters))
            return
        assert self._window is not None
        assert self._cutting is not None
        completed = self._window.now() or await self._window.next()
        if completed is not None:
            self._ready = self._cutting.take(*completed)[::-1]
            return
        alone = self._cutting.alone()
        if alone is None or self._ended:
            self.end()
        else:
            self._launch(self._source, alone)

    def _launch(self, source: Source, cutting: Cutting) -> None:
        starts, lengths = cutting.layout.starts.tolist(), cutting.layout.lengths.tolist()
        # `begin` must not reference `self`: deleting the iterator would then not stop the reads before a collection.
        chunk = self._chunk

        def begin(index: int, waiter: Any) -> None:
            source.begin_at(starts[index], lengths[index], waiter, chunk=chunk)

        self._cutting = cutting
        self._window = RequestWindow(
            begin,
            len(starts),
            source.yield_if_due,
            at_once=lambda index: source.read_cached(starts[index], lengths[index]),
            depth=self._depth,
        )
        if cutting.empty:
            nothing = source.read_at(0, 0)
            self._ready = [(index, nothing[:]) for index in cutting.empty]

    async def aclose(self) -> None:
        """Stop reading. A second call does nothing."""
        self.end()
        await yield_if_due()

    def end(self) -> None:
        """Like `aclose`, which does not wait."""
        self._ended = True
        self._ready = []
        if self._window is not None:
            self._window.close()

    def __del__(self) -> None:
        self.end()
