"""Part of an object as a Source: used by `Reader.slice` and `Reader.within`."""

from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np

from _uring import planning, refused
from _uring.arguments import byte_array, byte_index, whole_table, writable_bytes
from rangeio.errors import Error, UnexpectedEofError, asked, from_native
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets, UnprovenSize
from rangeio.reading import Destination, SourceReads
from rangeio.service import Again, Capability, Counts, Into, ReadAhead, Source, Stat

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer
    from _uring.waiters import Waiter


class Slice(SourceReads):
    """Bytes `start` to `stop` of a Source; offsets count from `start`. Errors give offsets in the whole object.

    It does not own the Source: closing a slice closes only slices of that slice; closing the Source closes all slices.
    """

    def __init__(self, source: Source, start: int, stop: int) -> None:
        outer = source if isinstance(source, Slice) else None  # a slice of a slice reads the Source directly
        self.source: Source = outer.source if outer else source
        self.start: int = min(outer.start + start, outer.stop) if outer else start
        self.stop: int = min(outer.start + stop, outer.stop) if outer else stop
        self.again: Again | None = (
            None  # set by its Reader, but not used: a slice is recreated from its Source
        )
        self._outer = outer
        self._closed = False

    def __reduce__(self) -> Again:
        return Slice, (self.source, self.start, self.stop)

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def capability(self) -> Capability:
        return self.source.capability

    @property
    def read_ahead(self) -> ReadAhead:
        return self.source.read_ahead

    @property
    def closed(self) -> bool:
        return self._closed or (self._outer or self.source).closed

    @property
    def size(self) -> int | None:
        return self._size_within(self.source.size)

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        return self.source.read_at(*self._part(offset, limit))

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        return self.source.read_into(*self._part_into(buffer, offset))

    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        return self.source.read_batch(*self._records(offsets, length, out), out)

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        try:
            part = self._part(offset, limit)
        except Error as error:
            return refused(error)
        return self.source.read_at_async(*part)

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        try:
            part = self._part_into(buffer, offset)
        except Error as error:
            return refused(error)
        return self.source.read_into_async(*part)

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        try:
            records = self._records(offsets, length, out)
        except Error as error:
            return refused(error)
        return self.source.read_batch_async(*records, out)

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        self._check_open(None, None)
        return self.source.fetch_into(views, self._cut_short(views, starts), how)

    def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Awaitable[Counts]:
        self._check_open(None, None)
        return self.source.fetch_into_async(views, self._cut_short(views, starts), how)

    def _cut_short(self, views: list[memoryview], starts: Offsets) -> Offsets:
        """The starts in the whole object; each view ends with the slice."""
        lengths = np.array([len(view) for view in views], np.int64)
        places, within = self._shifted(starts, lengths)
        for index in (within < lengths).nonzero()[0].tolist():
            views[index] = views[index][: within[index]]
        return places

    def read_cached(self, offset: int, limit: int) -> "Buffer | None":
        return self.source.read_cached(*self._part(offset, limit))

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        self.source.begin_at(*self._part(offset, limit), waiter, chunk=chunk)

    def _part(self, offset: SupportsIndex, limit: SupportsIndex) -> tuple[int, int]:
        """The range to read in the whole object. Checks the arguments first."""
        first, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        self._check_open(self._place(first), count)
        return self._place(first), min(count, self._left(first))

    def _part_into(self, buffer: Destination, offset: SupportsIndex) -> tuple[memoryview, int]:
        first, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        self._check_open(self._place(first), len(view))
        return view[: self._left(first)], self._place(first)

    def _records(self, offsets: Any, length: SupportsIndex, out: Any) -> tuple[Offsets, int]:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        whole_table(out, starts.size, count)
        self._check_open(None, None)
        passing = starts > self.stop - self.start - count
        if count and passing.any():
            index = int(passing.argmax())
            first = self._place(int(starts[index]))
            raise UnexpectedEofError(
                f"{asked(self.path, first, count)}: record {index} extends past the end of the slice, {self.stop}",
                path=self.path,
                offset=first,
                limit=count,
                index=index,
            )
        return np.minimum(starts, self.stop - self.start) + self.start, count

    def read_suffix(self, count: int) -> "Buffer | None":
        self._check_open(None, None)
        return self.source.read_suffix(count) if self._is_whole else None

    async def read_suffix_async(self, count: int) -> "Buffer | None":
        """See `Source`."""
        self._check_open(None, None)
        return await self.source.read_suffix_async(count) if self._is_whole else None

    @property
    def _is_whole(self) -> bool:
        return self.start == 0 and self.stop == OPEN

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        return self.source.fetch(*self._shifted(starts, lengths), chunk=chunk, concurrent=concurrent)

    def fetch_each(
        self,
        starts: Offsets,
        lengths: Offsets,
        *,
        chunk: int | None,
        concurrent: int | None,
        ordered: bool = False,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        self._check_open(None, None)
        return self.source.fetch_each(
            *self._shifted(starts, lengths), chunk=chunk, concurrent=concurrent, ordered=ordered
        )

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        self._check_open(None, None)
        return self.source.fetch_async(*self._shifted(starts, lengths), chunk=chunk, concurrent=concurrent)

    def near(self) -> int:
        return self.source.near()

    def stat(self) -> Stat:
        self._check_open(None, None)
        return self._within(self.source.stat())

    def prefetch(self, starts: Offsets, lengths: Offsets) -> None:
        self._check_open(None, None)
        self.source.prefetch(*self._shifted(starts, lengths))

    def yield_if_due(self) -> Awaitable[object]:
        self._check_open(None, None)
        return self.source.yield_if_due()

    async def stat_async(self) -> Stat:
        """See `Source`."""
        self._check_open(None, None)
        return self._within(await self.source.stat_async())

    def _within(self, whole: Stat) -> Stat:
        return replace(whole, size=self._size_within(whole.size))

    def within(self, timeout: Timeout) -> "Slice":
        """The same bytes with other time limits; closing this slice closes the result."""
        timed = Slice(self.source.within(timeout), self.start, self.stop)
        timed._outer = self
        return timed

    def close(self) -> None:
        self._closed = True

    def _size_within(self, size: int | None) -> int | None:
        if size is None:
            return None
        within = max(0, min(self.stop, int(size)) - self.start)
        return UnprovenSize(within) if isinstance(size, UnprovenSize) and size < self.stop else within

    def _left(self, offset: int) -> int:
        return max(0, self.stop - self.start - offset)

    def _place(self, offset: int) -> int:
        return min(self.start + offset, OPEN)

    def _shifted(self, starts: Offsets, lengths: Offsets) -> tuple[Offsets, Offsets]:
        return planning.shifted(starts, lengths, self.start, self.stop - self.start)

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self.closed:
            raise from_native("closed", 0, self.path, offset, limit, "this slice or its Reader was closed")
