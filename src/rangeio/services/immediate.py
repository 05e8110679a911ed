"""Base class of Sources that do not wait for a network. It implements most methods with those that differ."""

from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from _uring.arguments import byte_array, byte_index, whole_table, writable_bytes
from _uring.errors import without_frames
from rangeio.awaitables import at_once
from rangeio.errors import Error, UnexpectedEofError, asked, from_native
from rangeio.policy import Timeout
from rangeio.ranges import Offsets
from rangeio.reading import Destination
from rangeio.service import NEAR, Counts, Into, ReadAhead, Stat, Travels

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer
    from typing_extensions import Self

    from _uring import Buffer, Reactor
    from _uring.waiters import Waiter


class ImmediateSource(Travels):
    """A Source without a network.

    A subclass defines `path`, `closed`, `size`, `capability`, `stat`, `close`, `_reactor` and `_fetch_one`. The other
    methods use these; a subclass may override them with faster ones. Async methods complete in the call.
    """

    __slots__ = ()

    _reactor: "Reactor"
    closed: Any
    size: Any

    def _fetch_one(self, start: int, length: int, chunk: int | None) -> "Buffer":
        """Read one range with checked arguments, in pieces of `chunk` bytes; fewer bytes only at the end."""
        raise NotImplementedError

    def stat(self) -> Stat:
        raise NotImplementedError

    @property
    def read_ahead(self) -> ReadAhead:
        return NEAR

    def near(self) -> int:
        return 0

    def within(self, timeout: Timeout) -> "Self":
        return self

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        self._check_open(start, count)
        return self._fetch_one(start, count, None)

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        self._check_open(start, len(view))
        part = memoryview(self._fetch_one(start, len(view), None))
        view[: len(part)] = part
        return len(part)

    # One record at a time: simplicity matters more than speed here.
    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        memory = whole_table(out, starts.size, count)
        self._check_open(None, None)
        size = self.size
        if count and size is not None and (starts > size - count).any():
            raise self._passed(int((starts > size - count).argmax()), starts, count)
        table = self._reactor.allocate((starts.size, count)) if memory is None else out
        if starts.size and count:
            memory = self._reactor.writable(table).cast("B") if memory is None else memory
            for index, start in enumerate(starts.tolist()):
                record = self._fetch_one(start, count, None)
                if len(record) < count:
                    raise self._passed(index, starts, count)
                memory[index * count : (index + 1) * count] = memoryview(record)
        return table

    def _passed(self, index: int, starts: Offsets, count: int) -> UnexpectedEofError:
        start = int(starts[index])
        of = "" if self.size is None else f" of {self.size} bytes"
        return UnexpectedEofError(
            f"{asked(self.path, start, count)}: record {index} extends past the end of an object{of}",
            path=self.path,
            offset=start,
            limit=count,
            index=index,
        )

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        results = []
        for index, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            try:
                results.append(self._fetch_one(start, length, chunk))
            except Error as error:
                error.index = index
                raise
        return results

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        self._check_open(None, None)
        results: Counts = []
        for index, (view, start) in enumerate(zip(views, starts.tolist(), strict=True)):
            try:
                results.append(self.read_into(view, start))
            except Error as error:
                error.index = index
                if not how.each:
                    raise
                without_frames(error)
                results.append(error)
        return results

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
        requests = enumerate(zip(starts.tolist(), lengths.tolist(), strict=True))
        return ((index, self._one_or_error(start, length, chunk)) for index, (start, length) in requests)

    def _one_or_error(self, start: int, length: int, chunk: int | None) -> "Buffer | Error":
        try:
            return self._fetch_one(start, length, chunk)
        except Error as error:
            without_frames(error)
            return error

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        return at_once(self.read_at, offset, limit)

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        return at_once(self.read_into, buffer, offset)

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        return at_once(self.read_batch, offsets, length, out)

    def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Awaitable[Counts]:
        return at_once(self.fetch_into, views, starts, how)

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        return at_once(self.fetch, starts, lengths, chunk=chunk, concurrent=concurrent)

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        waiter.set_result(self.read_at(offset, limit))

    def yield_if_due(self) -> Awaitable[object]:
        return at_once(self._check_open, None, None)

    def stat_async(self) -> Awaitable[Stat]:
        return at_once(self.stat)

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self.closed:
            raise from_native("closed", 0, self.path, offset, limit, "")
