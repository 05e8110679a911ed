"""One opened object, read by ranges: plan, hand the requests to the Source, cut the results out of the replies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, overload

from rangeio.errors import ConfigInvalidError, Error, UnexpectedEofError, asked
from rangeio.ranges import (
    OPEN,
    Layout,
    Plan,
    Range,
    RangeList,
    Ranges,
    bounds,
    bounds_of_many,
    cut,
    lay_out,
    listed,
    make_plan,
    members,
    needs_size,
    scatter,
)
from rangeio.service import (
    Capability,
    Options,
    ReadAt,
    ReadBatch,
    ReadInto,
    Source,
    Stat,
    check_names,
)
from rangeio.window import Window

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from _uring import Buffer

OnError = Literal["raise", "return"]


class PlanOptions(TypedDict, total=False):
    """What one call may choose differently from its Reader; see `Options` for the meaning."""

    gap: int | None
    max_merged: int | None
    chunk: int | None
    concurrent: int | None


_PLAN_NAMES = list(PlanOptions.__annotations__)


def check_on_error(on_error: OnError) -> OnError:
    """ConfigInvalidError unless it is one of the two."""
    if on_error not in ("raise", "return"):
        raise ConfigInvalidError(f"on_error must be 'raise' or 'return', not {on_error!r}")
    return on_error


def chosen_for_call(options: Options, changes: PlanOptions) -> Options:
    """The options of one call. ConfigInvalidError for a name or a value that a call cannot have."""
    if not changes:
        return options
    given: dict[str, Any] = {**changes}
    check_names(given, _PLAN_NAMES, "option")
    return options.updated(given)


class Reader:
    """Reads byte ranges of one object. No cursor, no lock: any number of threads may read at once.

    Made by `rangeio.open`, `Operator.open`, `from_bytes` and `from_fd`. Every result is exactly the bytes asked for,
    fewer only where the object ends. Buffers stay valid after `close` and after the Reader is gone. Pickles as what it
    was opened with, and is opened anew where it is unpickled.

    Raises, besides what each method says: ObjectChangedError if the object is no longer the one that was opened,
    ClosedError after `close`, and the classes of `rangeio.errors` for what the service cannot do.
    """

    __slots__ = {
        "_counters": None,
        "_lock": None,
        "_options": None,
        "_origin": None,
        "_source": None,
        "read_at": """read_at(offset, limit) -> Buffer

    `limit` bytes from `offset`; fewer only at the end of the object, none at or past it. `limit` 0 does no I/O.

    ValueError for negative numbers, TypeError for anything but integers, OverflowError from 2**63 on, all before any
    I/O. Cost: one request, or one per `chunk` bytes. Of a local file this is the method of the native core itself.
    Source: pread(2); OpenDAL RFC-4382, RFC-7660.""",
        "read_batch": """read_batch(offsets, length) -> Buffer

    The records of `length` bytes at `offsets` as one table: np.asarray(result).shape == (len(offsets), length).

    offsets: integers or an int64 array, in any order. UnexpectedEofError if a record would pass the end. Nothing is
    merged; use `read_ranges` where records lie close together.""",
        "read_into": """read_into(buffer, offset=0) -> int

    Fill a writable C-contiguous buffer from `offset`; the bytes read, fewer than its size only at the end.

    TypeError if it is read-only, BufferError if it is not contiguous, before any I/O.""",
    }

    read_at: ReadAt
    read_into: ReadInto
    read_batch: ReadBatch

    def __init__(self, source: Source, options: Options, origin: Callable[[], Reader] | None = None) -> None:
        """origin: makes this Reader again in another process; None if that cannot be."""
        self._source = source
        self._options = options
        self._origin = origin
        self._lock = threading.Lock()
        self._counters = dict.fromkeys(("ranges", "requests", "bytes_requested", "bytes_fetched"), 0)
        self.read_at = source.read_at
        self.read_into = source.read_into
        self.read_batch = source.read_batch

    def read_exact(self, offset: SupportsIndex, n: SupportsIndex) -> Buffer:
        """Exactly `n` bytes from `offset`, or UnexpectedEofError."""
        buffer = self.read_at(offset, n)
        if len(buffer) < n:  # type: ignore[operator]
            start, count = self._start + offset.__index__(), n.__index__()
            raise UnexpectedEofError(
                f"{asked(self.path, start, count)}: the object ends after {len(buffer)} of {count} bytes",
                path=self.path,
                offset=start,
                limit=count,
            )
        return buffer

    def read_range(self, range: Range = None) -> Buffer:
        """The bytes of one range, without merging or splitting; of everything by default."""
        start, stop = bounds(range, self._size_for([range]))
        return self.read_at(start, stop - start)

    def read_to_end(self, offset: SupportsIndex = 0) -> Buffer:
        """Everything from `offset` on."""
        return self.read_range((offset, None))

    @overload
    def read_ranges(
        self, ranges: Ranges, *, on_error: Literal["raise"] = "raise", **options: Unpack[PlanOptions]
    ) -> list[Buffer]: ...
    @overload
    def read_ranges(
        self, ranges: Ranges, *, on_error: Literal["return"], **options: Unpack[PlanOptions]
    ) -> list[Buffer | Error]: ...
    def read_ranges(
        self, ranges: Ranges, *, on_error: OnError = "raise", **options: Unpack[PlanOptions]
    ) -> Any:
        """The bytes of each range, in the order given; each equal to what `read_range` returns for it.

        ranges: any spellings of `Range`, or an integer array of shape (n, 2). They may overlap, repeat, be empty or lie
        past the end. Near ones are fetched as one request (`gap`, `max_merged`; see `plan`); bytes in several of them
        are fetched once. A result shares the memory of its request unless that would keep more than four times its own
        bytes alive; then it is a copy.

        on_error: ``"raise"`` the first failure in the order given, its `index` set; or ``"return"`` each in its place.
        options: gap, max_merged, chunk, concurrent, for this call. Errors of arguments name the index of the range.
        """
        chosen = chosen_for_call(self._options, options)
        layout = self._lay_out(ranges, chosen)
        if check_on_error(on_error) == "return":
            found = dict(self._results(layout, chosen, on_error))
            return [found[index] for index in range(len(found))]
        layout, replies = self._fetch(layout, chosen)
        results = scatter(layout, replies, self._empty)
        self._count(len(results), len(replies), sum(map(len, replies)), sum(map(len, results)))
        return results

    @overload
    def iter_ranges(
        self, ranges: Ranges, *, on_error: Literal["raise"] = "raise", **options: Unpack[PlanOptions]
    ) -> Iterator[tuple[int, Buffer]]: ...
    @overload
    def iter_ranges(
        self, ranges: Ranges, *, on_error: Literal["return"], **options: Unpack[PlanOptions]
    ) -> Iterator[tuple[int, Buffer | Error]]: ...
    def iter_ranges(
        self, ranges: Ranges, *, on_error: OnError = "raise", **options: Unpack[PlanOptions]
    ) -> Any:
        """As `read_ranges`, each as (index, Buffer) as soon as it is there. Closing the iterator stops reading.

        Arguments are checked by the call, not by the first `next`.
        """
        check_on_error(on_error)
        chosen = chosen_for_call(self._options, options)
        return self._results(self._lay_out(ranges, chosen), chosen, on_error)

    def plan(self, ranges: Ranges, **options: Unpack[PlanOptions]) -> Plan:
        """The requests that `read_ranges` would send. Reads nothing, but asks for the size where a Suffix needs it."""
        chosen = chosen_for_call(self._options, options)
        layout = self._lay_out(ranges, chosen)
        return make_plan(
            self.path, layout, origin=self._start, chunk=chosen.chunk, concurrent=chosen.concurrent
        )

    def slice(self, start: SupportsIndex, stop: SupportsIndex | None = None) -> Reader:
        """A Reader of bytes `start` to `stop` (the end if None) that counts from 0.

        It shares what this one has open. Closing it leaves this one open; closing this one closes it too. Errors and
        plans of it name the bytes of the whole object.
        """
        first, last = bounds((start, stop), None)
        return Reader(Window(self._source, first, last), self._options, self._origin)

    def stat(self) -> Stat:
        """What the service says of the object now. ObjectChangedError if that is not what was opened."""
        return self._source.stat()

    @property
    def path(self) -> str:
        """What was opened, without credentials."""
        return self._source.path

    @property
    def size(self) -> int | None:
        """Bytes in the object; None where nobody knows before reading (/proc). Asks the service if it must."""
        size = self._source.size
        return self._source.stat().size if size is None else size

    @property
    def capability(self) -> Capability:
        """What can be had of this object, and how it is read."""
        return self._source.capability

    @property
    def stats(self) -> dict[str, int]:
        """Counters of the planned reads of this Reader (read_ranges, iter_ranges): ranges, requests, bytes_requested,
        bytes_fetched. What goes straight to the core, such as `read_at`, counts in `rangeio.stats()` only.
        """
        with self._lock:
            return dict(self._counters)

    @property
    def closed(self) -> bool:
        """Whether reads are refused."""
        return self._source.closed

    def close(self) -> None:
        """Refuse new reads; reads in flight complete. A second call does nothing."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        size = None if self.closed else self._source.size
        state = "closed" if self.closed else f"{'?' if size is None else size} bytes"
        return f"<rangeio.Reader {self.path!r} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            raise TypeError(
                f"cannot pickle the Reader of {self.path!r}: its descriptor means nothing in another process;"
                " open the file by path"
            )
        window = self._source if isinstance(self._source, Window) else None
        return _reopened, (self._origin, window and (window.start, window.stop))

    @property
    def _start(self) -> int:
        """Where in the object this Reader's offset 0 lies; errors and plans are of the whole object."""
        return self._source.start if isinstance(self._source, Window) else 0

    def _lay_out(self, ranges: Ranges, options: Options) -> Layout:
        items = listed(ranges)
        starts, stops = bounds_of_many(items, self._size_for(items))
        return lay_out(starts, stops, gap=options.gap, max_merged=options.max_merged)

    def _size_for(self, ranges: RangeList) -> int | None:
        """The size to plan with: None if unknown and not needed. Where even the service cannot tell, reads it all."""
        size = self._source.size
        if size is None and needs_size(ranges):
            size = self._source.stat().size
            if size is None:
                size = len(self.read_at(0, OPEN))
        return size

    def _fetch(self, layout: Layout, options: Options) -> tuple[Layout, list[Buffer]]:
        """The replies, and the layout that they are of.

        Errors are decided for each range: a request that merges several may fail for bytes that only one of them, or
        none, wants. So what failed for good is asked again range by range.
        """
        try:
            return layout, self._send(layout, options)
        except Error as error:
            if not layout.is_plain and error.status != "permanent":
                if error.index is not None:
                    error.index = int((layout.assigned == error.index).argmax())
                raise
            if layout.is_plain:
                raise
        layout = lay_out(layout.wanted_starts, layout.wanted_stops, gap=None, max_merged=None)
        return layout, self._send(layout, options)

    def _send(self, layout: Layout, options: Options) -> list[Buffer]:
        return self._source.fetch(
            layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
        )

    def _results(self, layout: Layout, options: Options, on_error: OnError) -> Iterator[tuple[int, Any]]:
        """The result of each range, or its Error, as they come. Not itself a generator: what it calls may refuse."""
        replies = self._source.fetch_each(
            layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
        )
        return self._cut_each(layout, replies, options, on_error)

    def _cut_each(
        self,
        layout: Layout,
        replies: Iterator[tuple[int, Buffer | Error]],
        options: Options,
        on_error: OnError,
    ) -> Iterator[tuple[int, Any]]:
        groups, empty = members(layout)
        again: list[int] = []
        for index in empty:
            yield index, self._empty()
        for request, reply in replies:
            group = groups[request]
            if isinstance(reply, Error):
                indices = [index for index, _, _ in group]
                if len(group) > 1 and reply.status == "permanent":
                    again += indices  # see _fetch
                    continue
                for index in indices:
                    yield index, _failed(reply, index, on_error)
                continue
            pieces = cut(reply, group)
            self._count(len(group), 1, len(reply), sum(map(len, pieces)))
            for (index, _, _), piece in zip(group, pieces, strict=True):
                yield index, piece
        if again:
            alone = lay_out(
                layout.wanted_starts[again], layout.wanted_stops[again], gap=None, max_merged=None
            )
            for index, result in self._results(alone, options, "return"):
                failure = isinstance(result, Error)
                yield again[index], _failed(result, again[index], on_error) if failure else result

    def _empty(self) -> Buffer:
        return self.read_at(0, 0)

    def _count(self, ranges: int, requests: int, fetched: int, wanted: int) -> None:
        with self._lock:
            self._counters["ranges"] += ranges
            self._counters["requests"] += requests
            self._counters["bytes_fetched"] += fetched
            self._counters["bytes_requested"] += wanted


def _failed(error: Error, index: int, on_error: OnError) -> Error:
    """The failure of one range, of which a request may hold several: raised, or as a value."""
    error = copy(error)
    error.index = index
    if on_error == "raise":
        raise error
    return error


def _reopened(origin: Callable[[], Reader], window: tuple[int, int] | None) -> Reader:
    reader = origin()
    return reader if window is None else reader.slice(*window)
