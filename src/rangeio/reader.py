"""`Reader`: reads ranges of one open object. It plans requests, the Source sends them, it cuts out the results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, cast, overload

from _uring.pickling import unpicklable
from rangeio import streams, suffixes
from rangeio.adapters.files import open_file
from rangeio.awaitables import AtOnce, run_now
from rangeio.budget import SHARED
from rangeio.destinations import ReadsInto
from rangeio.errors import Error
from rangeio.events import begun, told_responses
from rangeio.options import Options, check_names
from rangeio.policy import Timeout
from rangeio.ranges import (
    OPEN,
    Checked,
    Layout,
    Plan,
    Range,
    Ranges,
    Suffix,
    UnprovenSize,
    bounds,
    bounds_of_file,
    check,
    lay_out,
    make_plan,
    scatter,
)
from rangeio.reading import Reads, documents, setters
from rangeio.results import Counters, Cutting, OnError, check_on_error, ended_early, exactly, fetch, hint
from rangeio.service import Capability, Source, Stat
from rangeio.slices import Slice

if TYPE_CHECKING:
    import io

    from typing_extensions import Self, Unpack

    from _uring import Buffer


class PlanOptions(TypedDict, total=False):
    """Options of the Reader that one call may override; see `Options` for their meaning."""

    gap: int | Literal["auto"] | None
    max_merged: int | None
    chunk: int | None
    concurrent: int | None


_PLAN_NAMES = list(PlanOptions.__annotations__)


def chosen_for_call(options: Options, changes: PlanOptions) -> Options:
    """The options of one call. ConfigInvalidError for an unknown name or an invalid value."""
    if not changes:
        return options
    given: dict[str, Any] = {**changes}
    check_names(given, _PLAN_NAMES, "option")
    return options.updated(given)


class Reader(ReadsInto, Reads):
    """Reads byte ranges of one object. It has no cursor and no lock: any number of threads may read at once.

    Create one with `rangeio.open`, `Operator.open`, `from_bytes` or `from_fd`. Every result holds exactly the requested
    bytes, or fewer if the object ends before. Buffers stay valid after `close` and after the Reader is deleted. A
    Reader pickles as the arguments it was opened with; unpickling opens the object again.

    `read_at`, `read_into` and `read_batch` may be replaced on an instance or on the class, for wrapping or mocking:
    ``unittest.mock.patch.object(reader, "read_at")``. `read_exact`, `read_range` and `read_to_end` call the
    replacement; all other methods call the service directly.

    Every method may raise, besides the errors it documents: ObjectChangedError if the object is no longer the version
    that was opened, ClosedError after `close`, and other errors of `rangeio.errors` if the service fails.
    """

    __slots__ = {
        "_counters": None,
        "_options": None,
        "_origin": None,
        "_source": None,
        **documents(Reads),
    }

    def __init__(self, source: Source, options: Options, origin: Callable[[], Reader] | None = None) -> None:
        """origin: recreates this Reader in another process; None if that is not possible."""
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
        """Read exactly `n` bytes from `offset`. UnexpectedEofError if the object ends before."""
        buffer = self.read_at(offset, n)
        if len(buffer) < n:  # type: ignore[operator]
            raise ended_early(self.path, self._start + offset.__index__(), n.__index__(), len(buffer))
        return buffer

    def read_range(self, range: Range = None) -> Buffer:
        """Read one range (default: the whole object), without merging or splitting.

        Cost: one request, or one per `chunk` bytes. A `Suffix` of an object of unknown size is one request too, which
        tells the size and version, if the server sends the last bytes on request; otherwise a HEAD comes first.
        """
        found = self._source.read_suffix(range.n) if isinstance(range, Suffix) else None
        if found is not None:
            return found
        start, stop = self._bounds(range)
        return self.read_at(start, stop - start)

    def read_to_end(self, offset: SupportsIndex = 0) -> Buffer:
        """Read from `offset` to the end of the object."""
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
        """Read many ranges; one Buffer per range, in the given order, equal to the result of `read_range`.

        ranges: an iterable of `Range` in any of its forms, or an integer array of shape (n, 2). Ranges may overlap,
        repeat, be empty or lie past the end. Nearby ranges are merged into one request (`gap`, `max_merged`; see
        `plan`); bytes that several ranges share are fetched once. A result shares the memory of its request, unless
        that would keep more than four times its own size alive; then it is a copy. Suffixes alone, of an object of
        unknown size, are one request, as of `read_range`, if `gap`, `max_merged` and `chunk` allow that.

        exact: if True, a range that extends past the end raises UnexpectedEofError, like `read_exact`, instead of
        returning the available bytes. Open-ended ranges and Suffix are never short. on_error: ``"raise"`` raises the
        first failure in the given order, with its `index` set; ``"return"`` returns each Error in the place of its
        Buffer. options: gap, max_merged, chunk and concurrent for this call. Argument errors name the index of the
        range.
        """
        chosen, checked = chosen_for_call(self._options, options), check(ranges)
        results = self._read_ranges(checked, chosen, check_on_error(on_error))
        return exactly(self.path, self._start, checked, results, on_error) if exact else results

    def _read_ranges(self, checked: Checked, options: Options, on_error: OnError) -> list[Any]:
        began = begun()
        try:
            count = suffixes.only(checked, options)
            tail = self._source.read_suffix(count) if count else None
        except Error as error:
            return suffixes.to_each(checked, error, on_error)
        layout = self._lay_out(checked, options)
        if suffixes.is_all_of(tail, layout):
            responses = [cast("Buffer", tail)]
        elif on_error == "return":
            return self._each(layout, options, began)
        else:
            layout, responses = self._fetch(layout, options)
        results = scatter(layout, responses, self._empty)
        self._counters.count(responses, results)
        if began:
            told_responses(self.path, results, responses, began)
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
        """Like `read_ranges`, but yields (index, Buffer) as each range completes. Closing the iterator stops the reads.

        The call checks the arguments, not the first `next`.
        """
        check_on_error(on_error)
        chosen = chosen_for_call(self._options, options)
        return self._results(self._lay_out(check(ranges), chosen), chosen, on_error)

    def plan(self, ranges: Ranges, **options: Unpack[PlanOptions]) -> Plan:
        """The requests that `read_ranges` would send. Reads no data; requests the size if a Suffix needs it."""
        chosen = chosen_for_call(self._options, options)
        layout = self._lay_out(check(ranges), chosen)
        return make_plan(
            self.path, layout, origin=self._start, chunk=chosen.chunk, concurrent=chosen.concurrent
        )

    def prefetch(self, ranges: Ranges) -> None:
        """Say that these ranges will be read soon. Returns at once; what fails is not told.

        A local file: the kernel reads them into the page cache (POSIX_FADV_WILLNEED), in the order given, while this
        process goes on; what is left is dropped when the reader is closed. With `direct=True`,
        in memory and over a network it does nothing, because no cache would keep the bytes; there use `stream`,
        `iter_ranges` or an awaited read. ranges: as for `read_ranges`; errors of arguments name the index of the range.
        Any thread. Cost: no request. Source: posix_fadvise(2).
        """
        hint(self._source.prefetch, self._source.size, check(ranges))

    def slice(self, start: SupportsIndex, stop: SupportsIndex | None = None) -> Reader:
        """A Reader of bytes `start` to `stop` (None: the end). Its offsets count from `start`.

        It shares the file or connections of this Reader. Closing the slice leaves this Reader open; closing this Reader
        closes the slice too. Errors and plans of a slice give offsets in the whole object.
        """
        first, last = bounds((start, stop), None)
        return Reader(Slice(self._source, first, last), self._options, self._origin)

    def within(self, timeout: Timeout | float | None) -> Reader:
        """A Reader of the same object with other time limits: ``reader.within(2).read_at(0, 10)``.

        timeout: a `Timeout`, or seconds for a whole call, or None for the defaults. The result shares the file or
        connections of this Reader, like a `slice`. Files and memory ignore time limits.
        """
        limits = Timeout.of(timeout)
        origin = self._origin and partial(_reopened_within, self._origin, limits)
        source = Slice(self._source, 0, OPEN).within(limits)
        return Reader(source, replace(self._options, timeout=limits), origin)

    def stream(
        self, range: Range = None, *, chunk: int | None = None, prefetch: int | None = None
    ) -> Generator[Buffer]:
        """Iterate over a range in order, in Buffers of `chunk` bytes; the last may be shorter.

        prefetch: maximum number of bytes read ahead of the last Buffer handed out; 0 disables it (default: the
        Reader's, else 8 MiB, over a network 64 MiB; less while the process budget is exhausted). chunk: default that of
        the Reader, else 1 MiB, over a network 8 MiB. The first Buffer is handed out before the rest is read. Closing or
        deleting the iterator stops the reads.

        The call checks the arguments; a failed read raises at its position. Cost: about 2 us per chunk.
        """
        settings = streams.StreamSettings.of(self._options, chunk, prefetch)
        start, stop = self._bounds(range)
        return streams.stream_range(self._source, settings, start, stop)

    def copy(
        self,
        writer: Any,
        range: Range = None,
        *,
        progress: streams.Progress | None = None,
        chunk: int | None = None,
        prefetch: int | None = None,
    ) -> int:
        """Write a range to `writer` while the next chunks are read. Returns the number of bytes written.

        writer: an object with write(data), which returns the number of bytes it accepted (None: all). An exception from
        it stops the reads and is raised. progress: called with the bytes written so far and the total, None if unknown.
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
        """Pass the Buffers of `stream` to `consumer`, one by one. Returns the number of bytes passed.

        consumer: a callable; or an object with put(), such as queue.Queue, which may block; or an object with send(),
        whose flush() and close() are called after the last Buffer, if it has them. An exception from it stops the reads
        and is raised.
        """
        with closing(self.stream(range, chunk=chunk, prefetch=prefetch)) as pieces:
            return run_now(lambda: streams.sink(AtOnce(pieces), consumer, blocking=True))

    @overload
    def as_file(
        self, range: Range = None, *, buffer_size: int | None = None, cache: None = None
    ) -> io.BufferedReader: ...
    @overload
    def as_file(
        self, range: Range = None, *, buffer_size: int | None = None, cache: int
    ) -> io.BufferedIOBase: ...
    def as_file(
        self, range: Range = None, *, buffer_size: int | None = None, cache: int | None = None
    ) -> io.BufferedIOBase:
        """A file object over a range, for libraries that need one: csv, zipfile, pandas, h5py. It has its own cursor.

        Seeking reads nothing. Sequential reads are detected and read ahead, up to `buffer_size` bytes (default 128 KiB,
        over a network 8 MiB) at a time. A read at another position fetches 4 or 8 KiB; over a network 48 KiB, or all
        requested bytes if more, in one request. `.raw` is unbuffered: it reads the requested bytes, fewer only at the
        end. Closing the file leaves the Reader open; closing the Reader ends the file. Threads may share the buffered
        file, which has a lock, but not `.raw`. A seek before the start raises OSError (EINVAL), as for any file.

        cache: over a network, keep so many bytes of what was read, for readers that go back and forth (h5py, h5netcdf).
        Small reads fetch blocks of 256 KiB, those at a constant distance also the next ones; a read of 64 KiB or more
        of which nothing is kept fetches no more than that. What a call lacks is fetched at once. There is no `.raw`, a
        seek and the read after it belong together in each thread, and the file pickles if the Reader does. For files
        and memory it has no effect, because the page cache is faster.
        """
        size = self._size_for(isinstance(range, Suffix))
        start, stop = bounds_of_file(range, size)
        if cache is not None:
            from rangeio.adapters.cached.file import checked_cache, open_cached

            if checked_cache(cache) and not self.capability.positioned:
                part = Reader(Slice(self._source, start, stop), self._options, self._origin)
                return open_cached(part, buffer_size, cache, spread=self._options.chunk is None)
        return open_file(self._source, start, stop, buffer_size)

    def stat(self) -> Stat:
        """Ask the service about the object now. ObjectChangedError if it is no longer the version that was opened."""
        return self._source.stat()

    @property
    def path(self) -> str:
        """The path or URL that was opened, without credentials."""
        return self._source.path

    @property
    def size(self) -> int | None:
        """Size of the object in bytes; None if only reading tells (/proc). Asks the service if it is not known yet."""
        size = self._source.size
        return self._source.stat().size if size is None else int(size)

    @property
    def capability(self) -> Capability:
        """What this object supports, and how it is read."""
        return self._source.capability

    @property
    def stats(self) -> dict[str, int]:
        """Counters of the planned reads of this Reader (read_ranges, iter_ranges): ranges, requests, bytes_requested,
        bytes_fetched. All other reads (`read_at`, `read_batch`, `stream`, `as_file` and the like) count in
        `rangeio.stats()` only: these stay 0.
        """
        return self._counters.as_dict()

    @property
    def closed(self) -> bool:
        """Whether the Reader is closed, so that reads raise ClosedError."""
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
        """The position of this Reader's offset 0 in the object; errors and plans give offsets in the whole object."""
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
        """The size to plan with: None if unknown and not needed. If the service does not know it, reads everything."""
        size = self._source.size
        if size is None and needed:
            reported = self._source.stat().size
            size = len(self.read_at(0, OPEN)) if reported is None else size_after(self._source, reported)
        return size

    def _fetch(self, layout: Layout, options: Options) -> tuple[Layout, list[Buffer]]:
        def send(layout: Layout) -> list[Buffer]:
            return self._source.fetch(
                layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
            )

        return SHARED.during(layout.nbytes, lambda: fetch(layout, send))

    def _results(self, layout: Layout, options: Options, on_error: OnError) -> Iterator[tuple[int, Any]]:
        """(index, result or Error) as they complete. Not a generator itself, so that errors are raised by the call."""
        cutting = Cutting(layout, on_error, self._counters)
        return self._cut_each(cutting, self._responses(layout, options), options)

    def _each(self, layout: Layout, options: Options, began: float) -> list[Any]:
        """The result or Error of each range."""
        counted = Counters() if began else self._counters  # of this call, if somebody wants to know
        cutting = Cutting(layout, "return", counted)
        found = dict(self._cut_each(cutting, self._responses(layout, options), options))
        if began:
            self._counters.add(counted)
            counted.tell(self.path, len(found), began)
        return [found[index] for index in range(len(found))]

    def _responses(self, layout: Layout, options: Options) -> Iterator[tuple[int, Buffer | Error]]:
        return self._source.fetch_each(
            layout.starts, layout.lengths, chunk=options.chunk, concurrent=options.concurrent
        )

    def _cut_each(
        self, cutting: Cutting, responses: Iterator[tuple[int, Buffer | Error]], options: Options
    ) -> Iterator[tuple[int, Any]]:
        # An error raised here keeps this frame alive; closing `responses` releases the requests in flight.
        with closing(cast("Generator[tuple[int, Buffer | Error]]", responses)):
            for index in cutting.empty:
                yield index, self._empty()
            for request, response in responses:
                yield from cutting.take(request, response)
        alone = cutting.alone()
        if alone is not None:
            yield from self._cut_each(alone, self._responses(alone.layout, options), options)

    def _empty(self) -> Buffer:
        return self.read_at(0, 0)


def size_after(source: Source, reported: int) -> int:
    """The size to plan with after `stat`. It is proved if `stat` had to request a byte, and unproven otherwise."""
    return UnprovenSize(reported) if source.size is None else source.size


_set_read_at, _set_read_into, _set_read_batch = setters(Reader)


def _source_of(origin: Callable[[], Reader]) -> Source:
    return origin()._source


def _reopened_within(origin: Callable[[], Reader], timeout: Timeout) -> Reader:
    return origin().within(timeout)


def _reopened(origin: Callable[[], Reader], part: tuple[int, int] | None) -> Reader:
    reader = origin()
    return reader if part is None else reader.slice(*part)
