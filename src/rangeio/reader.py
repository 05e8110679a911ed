"""One opened object, read by ranges: plan, hand the requests to the Source, cut the results out of the replies."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, cast, overload

from _uring.pickling import unpicklable
from rangeio import streams
from rangeio.adapters.files import open_file
from rangeio.awaitables import AtOnce, run_now
from rangeio.budget import SHARED
from rangeio.errors import ConfigInvalidError, Error
from rangeio.policy import Timeout
from rangeio.ranges import (
    OPEN,
    Checked,
    Layout,
    Plan,
    Range,
    Ranges,
    Suffix,
    Told,
    bounds,
    bounds_of_file,
    check,
    lay_out,
    make_plan,
    scatter,
)
from rangeio.reading import Reads, documents, setters
from rangeio.results import Counters, Cutting, OnError, bytes_of, ended_early, exactly, fetch, hint
from rangeio.service import (
    Capability,
    Options,
    Source,
    Stat,
    check_names,
)
from rangeio.slices import Slice

if TYPE_CHECKING:
    import io

    from typing_extensions import Self, Unpack

    from _uring import Buffer


class PlanOptions(TypedDict, total=False):
    """What one call may choose differently from its Reader; see `Options` for the meaning."""

    gap: int | Literal["auto"] | None
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


class Reader(Reads):
    """Reads byte ranges of one object. No cursor, no lock: any number of threads may read at once.

    Made by `rangeio.open`, `Operator.open`, `from_bytes` and `from_fd`. Every result is exactly the bytes asked for,
    fewer only where the object ends. Buffers stay valid after `close` and after the Reader is gone. Pickles as what it
    was opened with, and is opened anew where it is unpickled.

    `read_at`, `read_into` and `read_batch` may be replaced, on a Reader or on the class, and so they may be wrapped or
    mocked: ``unittest.mock.patch.object(reader, "read_at")``. `read_exact`, `read_range` and `read_to_end` call what is
    there; everything else goes to the service.

    Raises, besides what each method says: ObjectChangedError if the object is no longer the one that was opened,
    ClosedError after `close`, and the classes of `rangeio.errors` for what the service cannot do.
    """

    __slots__ = {
        "_counters": None,
        "_options": None,
        "_origin": None,
        "_source": None,
        **documents(Reads),
    }

    def __init__(self, source: Source, options: Options, origin: Callable[[], Reader] | None = None) -> None:
        """origin: makes this Reader again in another process; None if that cannot be."""
        self._source = source
        self._options = options
        self._origin = origin
        self._counters = Counters()
        if origin is not None:
            source.again = _source_of, (origin,)
        _set_read_at(self, source.read_at)
        _set_read_into(self, source.read_into)
        _set_read_batch(self, source.read_batch)

    def read_exact(self, offset: SupportsIndex, n: SupportsIndex) -> Buffer:
        """Exactly `n` bytes from `offset`, or UnexpectedEofError."""
        buffer = self.read_at(offset, n)
        if len(buffer) < n:  # type: ignore[operator]
            raise ended_early(self.path, self._start + offset.__index__(), n.__index__(), len(buffer))
        return buffer

    def read_range(self, range: Range = None) -> Buffer:
        """The bytes of one range, without merging or splitting; of everything by default."""
        start, stop = self._bounds(range)
        return self.read_at(start, stop - start)

    def read_to_end(self, offset: SupportsIndex = 0) -> Buffer:
        """Everything from `offset` on."""
        return self.read_range((offset, None))

    @overload
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[PlanOptions],
    ) -> list[Buffer]: ...
    @overload
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: Literal["return"],
        **options: Unpack[PlanOptions],
    ) -> list[Buffer | Error]: ...
    def read_ranges(
        self,
        ranges: Ranges,
        *,
        exact: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[PlanOptions],
    ) -> Any:
        """The bytes of each range, in the order given; each equal to what `read_range` returns for it.

        ranges: any spellings of `Range`, or an integer array of shape (n, 2). They may overlap, repeat, be empty or lie
        past the end. Near ones are fetched as one request (`gap`, `max_merged`; see `plan`); bytes in several of them
        are fetched once. A result shares the memory of its request unless that would keep more than four times its own
        bytes alive; then it is a copy.

        exact: a range that passes the end is an UnexpectedEofError, as by `read_exact`, instead of what there is of it;
        ranges that go on to the end, and a Suffix, are what there is in any case. on_error: ``"raise"`` the first
        failure in the order given, its `index` set; or ``"return"`` each in its place. options: gap, max_merged, chunk,
        concurrent, for this call. Errors of arguments name the index of the range.
        """
        chosen, checked = chosen_for_call(self._options, options), check(ranges)
        results = self._read_ranges(self._lay_out(checked, chosen), chosen, check_on_error(on_error))
        return exactly(self.path, self._start, checked, results, on_error) if exact else results

    def _read_ranges(self, layout: Layout, options: Options, on_error: OnError) -> list[Any]:
        if on_error == "return":
            found = dict(self._results(layout, options, on_error))
            return [found[index] for index in range(len(found))]
        layout, replies = self._fetch(layout, options)
        results = scatter(layout, replies, self._empty)
        self._counters.count(replies, results)
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
        return self._results(self._lay_out(check(ranges), chosen), chosen, on_error)

    def plan(self, ranges: Ranges, **options: Unpack[PlanOptions]) -> Plan:
        """The requests that `read_ranges` would send. Reads nothing, but asks for the size where a Suffix needs it."""
        chosen = chosen_for_call(self._options, options)
        layout = self._lay_out(check(ranges), chosen)
        return make_plan(
            self.path, layout, origin=self._start, chunk=chosen.chunk, concurrent=chosen.concurrent
        )

    def prefetch(self, ranges: Ranges) -> None:
        """Say that these ranges will be read soon. Returns at once; what fails is not told.

        A local file: the kernel reads them into the page cache (POSIX_FADV_WILLNEED), in the order given, while this
        process goes on. With `direct=True`, in memory and over a network it does nothing, because no cache would keep
        the bytes; there use `stream`, `iter_ranges` or an awaited read. ranges: as for `read_ranges`; errors of
        arguments name the index of the range. Any thread. Cost: no request. Source: posix_fadvise(2).
        """
        hint(self._source.prefetch, self._source.size, check(ranges))

    def slice(self, start: SupportsIndex, stop: SupportsIndex | None = None) -> Reader:
        """A Reader of bytes `start` to `stop` (the end if None) that counts from 0.

        It shares what this one has open. Closing it leaves this one open; closing this one closes it too. Errors and
        plans of it name the bytes of the whole object.
        """
        first, last = bounds((start, stop), None)
        return Reader(Slice(self._source, first, last), self._options, self._origin)

    def within(self, timeout: Timeout | float | None) -> Reader:
        """This Reader with other time limits, for one call or many: ``reader.within(2).read_at(0, 10)``.

        timeout: see `Timeout`; seconds for a whole call; None for the defaults. It shares what this one has open, as a
        `slice` does. Files and memory know no time limits.
        """
        limits = Timeout.of(timeout)
        origin = self._origin and partial(_reopened_within, self._origin, limits)
        source = Slice(self._source, 0, OPEN).within(limits)
        return Reader(source, replace(self._options, timeout=limits), origin)

    def stream(
        self, range: Range = None, *, chunk: int | None = None, prefetch: int | None = None
    ) -> Generator[Buffer]:
        """The bytes of a range in order, as Buffers of `chunk` bytes; the last may be shorter.

        prefetch: most bytes that are read ahead of the one that was handed out, 0 for none (default: the Reader's, else
        8 MiB, over a network 64 MiB; less while the process's budget is used up). chunk: default that of the Reader,
        else 1 MiB, over a network 8 MiB. The first is handed out before the rest is read. Closing the iterator, or
        letting go of it, stops the reads.

        Arguments are checked by the call; what fails later is raised in its place. Cost: some 2 us for each chunk.
        """
        course = streams.Course.of(self._options, chunk, prefetch)
        start, stop = self._bounds(range)
        return streams.pieces(self._source, course, start, stop)

    def copy(
        self,
        writer: Any,
        range: Range = None,
        *,
        progress: streams.Progress | None = None,
        chunk: int | None = None,
        prefetch: int | None = None,
    ) -> int:
        """Write the bytes of a range to `writer`, while the next are read; the number of bytes written.

        writer: has write(data), which may take less than all (its return value; None means all). What it raises stops
        the reads and is raised. progress: called with the bytes written so far and those in all, None if not known.
        """
        with closing(self.stream(range, chunk=chunk, prefetch=prefetch)) as pieces:
            return run_now(lambda: streams.copy(AtOnce(pieces), writer, progress, lambda: self._total(range)))

    def sink(
        self,
        consumer: Any,
        range: Range = None,
        *,
        chunk: int | None = None,
        prefetch: int | None = None,
    ) -> int:
        """Give the Buffers of `stream` to `consumer`, one after the other; the number of bytes given.

        consumer: a callable; or has put(), as a queue.Queue, which may block; or has send(), and then flush() and
        close() if it has them, called after the last. What it raises stops the reads and is raised.
        """
        with closing(self.stream(range, chunk=chunk, prefetch=prefetch)) as pieces:
            return run_now(lambda: streams.sink(AtOnce(pieces), consumer, blocking=True))

    def as_file(self, range: Range = None, *, buffer_size: int | None = None) -> io.BufferedReader:
        """A file object over a range, for what wants one: csv, zipfile, pandas, h5py. It has a cursor of its own.

        Seeking costs no read. Reading on from where the last read ended is noticed, and read ahead, up to `buffer_size`
        bytes (default 128 KiB, over a network 8 MiB) at a time; a read elsewhere reads 8 KiB. Over a network it reads
        48 KiB, or all that it was asked for, in one request. `.raw` is without a buffer, and reads what it is asked
        for, fewer bytes only at the end. Closing it leaves the Reader open; closing the Reader ends it. Not for two
        threads at once without the buffer's own lock. A seek before the start is an OSError (EINVAL), as of any file.
        """
        size = self._size_for(isinstance(range, Suffix))
        return open_file(self._source, *bounds_of_file(range, size), buffer_size)

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
        return self._source.stat().size if size is None else int(size)

    @property
    def capability(self) -> Capability:
        """What can be had of this object, and how it is read."""
        return self._source.capability

    @property
    def stats(self) -> dict[str, int]:
        """Counters of the planned reads of this Reader (read_ranges, iter_ranges): ranges, requests, bytes_requested,
        bytes_fetched. What goes straight to the core, such as `read_at`, counts in `rangeio.stats()` only.
        """
        return self._counters.as_dict()

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
            raise unpicklable(self.path)
        part = self._source if isinstance(self._source, Slice) else None
        return _reopened, (self._origin, part and (part.start, part.stop))

    @property
    def _start(self) -> int:
        """Where in the object this Reader's offset 0 lies; errors and plans are of the whole object."""
        return self._source.start if isinstance(self._source, Slice) else 0

    def _lay_out(self, checked: Checked, options: Options) -> Layout:
        starts, stops = checked.within(self._size_for(checked.needs_size))
        gap = self._source.near() if options.gap == "auto" else options.gap
        return lay_out(starts, stops, gap=gap, max_merged=options.max_merged)

    def _bounds(self, range: Range) -> tuple[int, int]:
        return bounds(range, self._size_for(isinstance(range, Suffix)))

    def _total(self, range: Range) -> int | None:
        start, stop = self._bounds(range)
        return None if stop == OPEN else stop - start

    def _size_for(self, needed: bool) -> int | None:
        """The size to plan with: None if unknown and not needed. Where even the service cannot tell, reads it all."""
        size = self._source.size
        if size is None and needed:
            told = self._source.stat().size
            size = len(self.read_at(0, OPEN)) if told is None else size_after(self._source, told)
        return size

    def _fetch(self, layout: Layout, options: Options) -> tuple[Layout, list[Buffer]]:
        def send(layout: Layout) -> list[Buffer]:
            return self._source.fetch(
                layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
            )

        return SHARED.during(bytes_of(layout), lambda: fetch(layout, send))

    def _results(self, layout: Layout, options: Options, on_error: OnError) -> Iterator[tuple[int, Any]]:
        """The result of each range, or its Error, as they come. Not itself a generator: what it calls may refuse."""
        cutting = Cutting(layout, on_error, self._counters)
        return self._cut_each(cutting, self._replies(layout, options), options)

    def _replies(self, layout: Layout, options: Options) -> Iterator[tuple[int, Buffer | Error]]:
        return self._source.fetch_each(
            layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
        )

    def _cut_each(
        self, cutting: Cutting, replies: Iterator[tuple[int, Buffer | Error]], options: Options
    ) -> Iterator[tuple[int, Any]]:
        # Whoever keeps an error that is raised here keeps this frame, but nothing that is under way.
        with closing(cast("Generator[tuple[int, Buffer | Error]]", replies)):
            for index in cutting.empty:
                yield index, self._empty()
            for request, reply in replies:
                yield from cutting.take(request, reply)
        alone = cutting.alone()
        if alone is not None:
            yield from self._cut_each(alone, self._replies(alone.layout, options), options)

    def _empty(self) -> Buffer:
        return self.read_at(0, 0)


def size_after(source: Source, told: int) -> int:
    """The size to plan by when `stat` has told one. It is proved if a byte had to be asked for."""
    return Told(told) if source.size is None else source.size


_set_read_at, _set_read_into, _set_read_batch = setters(Reader)


def _source_of(origin: Callable[[], Reader]) -> Source:
    return origin()._source


def _reopened_within(origin: Callable[[], Reader], timeout: Timeout) -> Reader:
    return origin().within(timeout)


def _reopened(origin: Callable[[], Reader], part: tuple[int, int] | None) -> Reader:
    reader = origin()
    return reader if part is None else reader.slice(*part)
