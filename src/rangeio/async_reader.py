"""`AsyncReader`: the methods of `Reader` as awaitables. It plans like `Reader` and calls a Source's async methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar, overload

from _uring import yield_if_due
from _uring.arguments import byte_array, byte_index, whole_table, writable_bytes
from _uring.pickling import unpicklable
from rangeio import streams, suffixes
from rangeio.adapters.async_files import AsyncFile
from rangeio.async_ranges import AsyncRanges
from rangeio.budget import SHARED
from rangeio.destinations import AwaitedReadsInto
from rangeio.errors import Error, from_native
from rangeio.events import begun, told_responses
from rangeio.locks import begin_lock
from rangeio.options import Options
from rangeio.policy import Timeout
from rangeio.ranges import (
    OPEN,
    Checked,
    Layout,
    Plan,
    Range,
    Ranges,
    Suffix,
    bounds,
    bounds_of_file,
    check,
    lay_out,
    make_plan,
    scatter,
)
from rangeio.reader import PlanOptions, chosen_for_call, size_after
from rangeio.reading import HANDED_OUT, AwaitedReads, Destination, documents, setters
from rangeio.results import Counters, OnError, check_on_error, ended_early, exactly, fetch_async, hint
from rangeio.service import Capability, Source, Stat
from rangeio.slices import Slice

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from _uring import Buffer

_T = TypeVar("_T")


class AsyncReader(AwaitedReadsInto, AwaitedReads):
    """Reads byte ranges of one object under asyncio (also uvloop) or trio. It has no cursor and no loop of its own.

    Create one with `rangeio.open_async` or `Operator.open_async`, with or without ``async with``. The first use opens
    the object and raises the errors of opening. Any number of tasks may read at once, on any loop: on loops in several
    threads, on successive loops, and in a forked child. Otherwise it behaves like `Reader`.

    The call checks the arguments, before anything is awaited. Cancelling a read returns at once; the read keeps its
    memory and file until it completes. Only `read_into` waits for that, because the memory is the caller's. A read of
    available data (cached, in memory, known) completes without an event loop iteration. It yields to the loop now and
    then, so that other tasks run and cancellations arrive. Opening a local file and reading its size run on the loop's
    thread.
    """

    __slots__ = {
        "__weakref__": None,
        "_again": None,
        "_closed": None,
        "_counters": None,
        "_lock": None,
        "_open": None,
        "_options": None,
        "_origin": None,
        "_parent": None,
        "_source": None,
        "path": "The path or URL that was requested, without credentials.",
        **documents(AwaitedReads, "await "),
    }

    path: str

    def __init__(
        self,
        open_source: Callable[[], Source],
        options: Options,
        path: str,
        origin: Callable[[], AsyncReader] | None = None,
        *,
        parent: AsyncReader | None = None,
        again: tuple[Callable[..., AsyncReader], tuple[Any, ...]] | None = None,
    ) -> None:
        """open_source: called once, at the first use. origin: recreates this AsyncReader in another process.

        Of a `slice` or `within`: parent: the AsyncReader that owns the Source; again: a function and its arguments that
        recreate this one from the parent.
        """
        self._open = open_source
        self._options = options
        self._origin = origin
        self._parent, self._again = parent, again
        self._source: Source | None = None
        self._closed = False
        self._counters = Counters()
        begin_lock(self)
        self.path = path

    def __getattr__(self, name: str) -> Any:
        """The read methods while their slots are empty: each opens the object first."""
        if name not in _FIRST_CALLS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._source is None:
            return _FIRST_CALLS[name].__get__(self)
        return self._filled(self._source)[HANDED_OUT.index(name)]

    def _filled(self, source: Source) -> tuple[Any, ...]:
        """The Source's methods. Stores them in the empty slots; a method that the user replaced is kept."""
        methods = source.read_at_async, source.read_into_async, source.read_batch_async
        for name, put, method in zip(HANDED_OUT, _SETTERS, methods, strict=True):
            if _is_empty(self, name):
                put(self, method)
        return methods

    def _opened(self) -> Source:
        """The Source, opened if necessary. Stores its methods in the slots."""
        source = self._source
        if source is None:
            with self._lock:
                if self._closed:
                    raise from_native("closed", 0, self.path, None, None, "")
                if self._source is None:
                    self._source = self._open()
                    if self._origin is not None:
                        self._source.again = _source_of, (self._origin,)
                source = self._source
            self._filled(source)
        return source

    async def _after_opening(self, read: Callable[[Source], Awaitable[_T]]) -> _T:
        await yield_if_due()
        return await read(self._opened())

    def _first_read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> Awaitable[Buffer]:
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        return self._after_opening(lambda source: source.read_at_async(start, count))

    def _first_read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        start, view = byte_index(offset, "offset"), writable_bytes(buffer)  # type: ignore[arg-type]
        return self._after_opening(lambda source: source.read_into_async(view, start))

    def _first_read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        whole_table(out, starts.size, count)
        return self._after_opening(lambda source: source.read_batch_async(starts, count, out))

    def read_exact(self, offset: SupportsIndex, n: SupportsIndex) -> Awaitable[Buffer]:
        """Read exactly `n` bytes from `offset`. UnexpectedEofError if the object ends before."""
        return self._exactly(byte_index(offset, "offset"), byte_index(n, "n"))

    async def _exactly(self, offset: int, n: int) -> Buffer:
        buffer = await self.read_at(offset, n)
        if len(buffer) < n:
            raise ended_early(self.path, self._start + offset, n, len(buffer))
        return buffer

    def read_range(self, range: Range = None) -> Awaitable[Buffer]:
        """Read one range (default: the whole object), without merging or splitting."""
        if isinstance(range, Suffix):
            return self._read_suffix(range)
        start, stop = bounds(range, None)
        return self.read_at(start, stop - start)

    async def _ends(self, count: int) -> Buffer | None:
        await yield_if_due()
        return await self._opened().read_suffix_async(count)

    async def _read_suffix(self, range: Suffix) -> Buffer:
        found = await self._ends(range.n)
        if found is None:
            start, stop = bounds(range, await self._size_for(True))
            found = await self.read_at(start, stop - start)
        return found

    def read_to_end(self, offset: SupportsIndex = 0) -> Awaitable[Buffer]:
        """Read from `offset` to the end of the object."""
        return self.read_range((offset, None))

    # --- many ranges -----------------------------------------------------------------------------------------

    @overload
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[PlanOptions],
    ) -> Awaitable[list[Buffer]]: ...
    @overload
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: Literal["return"],
        **options: Unpack[PlanOptions],
    ) -> Awaitable[list[Buffer | Error]]: ...
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[PlanOptions],
    ) -> Any:
        """Read many ranges; one Buffer per range, in the given order. One await. See `Reader.read_ranges`."""
        check_on_error(on_error)
        chosen, checked = chosen_for_call(self._options, options), check(ranges)
        return (self._read_exactly if exact else self._read_ranges)(checked, chosen, on_error)

    async def _read_exactly(self, checked: Checked, options: Options, on_error: OnError) -> list[Any]:
        results = await self._read_ranges(checked, options, on_error)
        return exactly(self.path, self._start, checked, results, on_error)

    async def _read_ranges(self, checked: Checked, options: Options, on_error: OnError) -> list[Any]:
        count, tail, began = suffixes.only(checked, options), None, begun()
        try:
            if count:
                tail = await self._ends(count)
        except Error as error:
            return suffixes.to_each(checked, error, on_error)
        if tail is None and on_error == "return":
            return await self._each(checked, options, on_error).in_order()
        layout = await self._lay_out(checked, options)
        if suffixes.is_all_of(tail, layout):
            responses: list[Buffer] = [tail]  # type: ignore[list-item]
        else:
            send = partial(fetch_async, layout, self._opened().fetch_async, options)
            layout, responses = await SHARED.while_awaiting(layout.nbytes, send)
        empty = None if layout.is_plain else await self.read_at(0, 0)
        results = scatter(layout, responses, lambda: empty[:])  # type: ignore[index]
        self._counters.count(responses, results)
        if began:
            told_responses(self.path, results, responses, began)
        return results

    @overload
    def iter_ranges(
        self, ranges: Ranges, *, on_error: Literal["raise"] = "raise", **options: Unpack[PlanOptions]
    ) -> AsyncRanges[Buffer]: ...
    @overload
    def iter_ranges(
        self, ranges: Ranges, *, on_error: Literal["return"], **options: Unpack[PlanOptions]
    ) -> AsyncRanges[Buffer | Error]: ...
    def iter_ranges(
        self, ranges: Ranges, *, on_error: OnError = "raise", **options: Unpack[PlanOptions]
    ) -> Any:
        """Like `read_ranges`, but yields (index, Buffer) as each range completes: ``async for index, buffer in ...``.

        The iteration may stop at any point; `aclose`, or deleting the iterator, stops the reads.
        """
        chosen = chosen_for_call(self._options, options)
        return self._each(check(ranges), chosen, check_on_error(on_error))

    def _each(self, checked: Checked, options: Options, on_error: OnError) -> AsyncRanges[Any]:
        async def begin() -> tuple[Source, Layout]:
            layout = await self._lay_out(checked, options)
            return self._opened(), layout

        return AsyncRanges(begin, self._counters, on_error, options.chunk, options.concurrent)

    def prefetch(self, ranges: Ranges) -> None:
        """Say that these ranges will be read soon, as `Reader.prefetch`. Nothing to await: it returns at once."""
        source = self._opened()
        hint(source.prefetch, source.size, check(ranges))

    def plan(self, ranges: Ranges, **options: Unpack[PlanOptions]) -> Awaitable[Plan]:
        """The requests that `read_ranges` would send. Reads no data; requests the size if a Suffix needs it."""
        return self._plan(check(ranges), chosen_for_call(self._options, options))

    async def _plan(self, checked: Checked, options: Options) -> Plan:
        layout = await self._lay_out(checked, options)
        return make_plan(
            self._opened().path,
            layout,
            origin=self._start,
            chunk=options.chunk,
            concurrent=options.concurrent,
        )

    async def _lay_out(self, checked: Checked, options: Options) -> Layout:
        starts, stops = checked.within(await self._size_for(checked.needs_size))
        gap = self._opened().near() if options.gap == "auto" else options.gap
        return lay_out(starts, stops, gap=gap, max_merged=options.max_merged)

    async def _size_for(self, needed: bool) -> int | None:
        """Like `Reader._size_for`."""
        await yield_if_due()
        source = self._opened()
        size = source.size
        if size is None and needed:
            reported = (await source.stat_async()).size
            size = (
                len(await source.read_at_async(0, OPEN)) if reported is None else size_after(source, reported)
            )
        return size

    # --- streams and files -----------------------------------------------------------------------------------

    def stream(
        self, range: Range = None, *, chunk: int | None = None, prefetch: int | None = None
    ) -> streams.AsyncStream:
        """Iterate over a range in order: ``async for buffer in reader.stream()``. See `Reader.stream`.

        The iteration may stop at any point; `aclose`, or deleting the iterator, stops the reads.
        """
        settings = streams.StreamSettings.of(self._options, chunk, prefetch)
        bounds(range, 0 if isinstance(range, Suffix) else None)
        return streams.AsyncStream(settings, partial(self._placed, bounds, range))

    def copy(
        self,
        writer: Any,
        range: Range = None,
        *,
        progress: streams.Progress | None = None,
        chunk: int | None = None,
        prefetch: int | None = None,
    ) -> Awaitable[int]:
        """Write a range to `writer`. Returns the number of bytes written. See `Reader.copy`.

        writer: sync or async: a file, an aiofiles file, an asyncio.StreamWriter (its `drain` is awaited) or a trio
        stream. A sync writer is called on the loop's thread.
        """
        streams.writer_call(writer)  # a wrong writer fails in the call, not in the await
        return self._copy(self.stream(range, chunk=chunk, prefetch=prefetch), writer, range, progress)

    async def _copy(
        self, stream: streams.AsyncStream, writer: Any, range: Range, progress: streams.Progress | None
    ) -> int:
        def total() -> int | None:
            start, stop = bounds(range, self._opened().size)
            return None if stop == OPEN else stop - start

        await self._bounds(range)
        try:
            return await streams.copy(stream, writer, progress, total)
        finally:
            stream.end()

    def sink(
        self,
        consumer: Any,
        range: Range = None,
        *,
        chunk: int | None = None,
        prefetch: int | None = None,
    ) -> Awaitable[int]:
        """Pass the Buffers of `stream` to `consumer`. Returns the number of bytes passed. See `Reader.sink`.

        consumer: sync or async: a callable, an asyncio.Queue, a trio memory channel (closed at the end) or a
        queue.Queue (a full one does not block the loop).
        """
        streams.consumer_call(consumer, blocking=False)
        return self._sink(self.stream(range, chunk=chunk, prefetch=prefetch), consumer)

    async def _sink(self, stream: streams.AsyncStream, consumer: Any) -> int:
        try:
            return await streams.sink(stream, consumer, blocking=False)
        finally:
            stream.end()

    def as_async_file(self, range: Range = None, *, buffer_size: int | None = None) -> AsyncFile:
        """A file object over a range, with the interface of aiofiles.

        ``await file.read(n)``, ``async for line in file``. It has its own cursor. Seeking reads nothing. Closing it
        leaves the AsyncReader open. See `Reader.as_file`.
        """
        bounds(range, 0 if isinstance(range, Suffix) else None)
        return AsyncFile(partial(self._placed, bounds_of_file, range), self.path, buffer_size)

    async def _placed(self, within: Callable[..., tuple[int, int]], range: Range) -> tuple[Source, int, int]:
        start, stop = within(range, await self._size_for(isinstance(range, Suffix)))
        return self._opened(), start, stop

    async def _bounds(self, range: Range) -> tuple[int, int]:
        return bounds(range, await self._size_for(isinstance(range, Suffix)))

    def slice(self, start: SupportsIndex, stop: SupportsIndex | None = None) -> AsyncReader:
        """An AsyncReader of bytes `start` to `stop` (None: the end); offsets count from `start`. See `Reader.slice`."""
        first, last = bounds((start, stop), None)
        again = AsyncReader.slice, (self, first, last)
        return AsyncReader(
            lambda: Slice(self._opened(), first, last), self._options, self.path, parent=self, again=again
        )

    def within(self, timeout: Timeout | float | None) -> AsyncReader:
        """An AsyncReader of the same object with other time limits: ``await reader.within(2).read_at(0, 10)``.

        See `Reader.within`.
        """
        limits = Timeout.of(timeout)
        return AsyncReader(
            lambda: Slice(self._opened(), 0, OPEN).within(limits),
            replace(self._options, timeout=limits),
            self.path,
            parent=self,
            again=(AsyncReader.within, (self, limits)),
        )

    async def stat(self) -> Stat:
        """Ask the service about the object now. ObjectChangedError if it is no longer the version that was opened."""
        await yield_if_due()
        return await self._opened().stat_async()

    @property
    def size(self) -> int | None:
        """Size of the object in bytes if it is known without a request, else None. `stat` requests it."""
        size = self._opened().size
        return None if size is None else int(size)

    @property
    def capability(self) -> Capability:
        """What this object supports, and how it is read."""
        return self._opened().capability

    @property
    def stats(self) -> dict[str, int]:
        """Counters of the planned reads of this AsyncReader. See `Reader.stats`."""
        return self._counters.as_dict()

    @property
    def closed(self) -> bool:
        """Whether the AsyncReader is closed, so that reads raise ClosedError."""
        if self._source is not None:
            return self._source.closed
        return self._closed or (self._parent is not None and self._parent.closed)

    def close(self) -> None:
        """Refuse new reads; reads in flight complete. A second call does nothing. Does not block."""
        with self._lock:
            self._closed = True
        if self._source is not None:
            self._source.close()

    async def aclose(self) -> None:
        """Like `close`, awaited."""
        self.close()
        await yield_if_due()

    async def __aenter__(self) -> Self:
        """Open the object, so that an object that does not exist raises NotFoundError here."""
        await yield_if_due()
        self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed or self._source is None:
            state = "closed" if self.closed else "not opened yet"
        else:
            state = f"{'?' if self._source.size is None else self._source.size} bytes"
        return f"<rangeio.AsyncReader {self.path!r} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._again is not None:
            return self._again
        if self._origin is None:
            raise unpicklable(self.path)
        return self._origin, ()

    @property
    def _start(self) -> int:
        """The position of this reader's offset 0 in the object; errors and plans give offsets in the whole object."""
        source = self._opened()
        return source.start if isinstance(source, Slice) else 0


_SETTERS = setters(AsyncReader)
_SLOTS = {name: vars(AsyncReader)[name] for name in HANDED_OUT}
_FIRST_CALLS: dict[str, Any] = {
    name: update_wrapper(vars(AsyncReader)[f"_first_{name}"], getattr(AwaitedReads, name))
    for name in HANDED_OUT
}


def _is_empty(reader: AsyncReader, name: str) -> bool:
    try:
        _SLOTS[name].__get__(reader)
    except AttributeError:
        return True
    return False


def _source_of(origin: Callable[[], AsyncReader]) -> Source:
    return origin()._opened()
