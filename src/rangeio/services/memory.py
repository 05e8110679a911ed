"""Objects in memory: the reference service. Slow and obvious, it says what every other service must return."""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from errno import ENOENT
from typing import TYPE_CHECKING, Any, SupportsIndex, cast
from zlib import crc32

from _uring.surface import byte_array, byte_index, writable_bytes
from rangeio.errors import Error, NotFoundError, UnexpectedEofError, asked, closest, from_native
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets, split
from rangeio.service import (
    NEAR,
    Capability,
    Destination,
    FileResults,
    Options,
    ReadAhead,
    Stat,
    Travels,
    rolled_up,
)
from rangeio.waiting import at_once

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor
    from _uring.waiters import Waiter


class MemorySource(Travels):
    """One object of bytes. Reads copy into Buffers of the reactor, as every service's do."""

    def __init__(self, reactor: "Reactor", path: str, data: bytes) -> None:
        self._reactor = reactor
        self._path = path
        self._data = memoryview(data)
        self._closed = False

    @property
    def path(self) -> str:
        return self._path

    @property
    def read_ahead(self) -> ReadAhead:
        return NEAR

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def size(self) -> int | None:
        return len(self._data)

    @property
    def capability(self) -> Capability:
        return Capability(positioned=True, suffix=True, list=True, pin="immutable", backend="memory")

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        self._check_open(start, count)
        return self._fetch_one(start, count, None)

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        self._check_open(start, len(view))
        part = self._data[start : start + len(view)]
        view[: len(part)] = part
        return len(part)

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Buffer":
        """See `Source`. One record at a time: it is the meaning that counts here."""
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        self._check_open(None, None)
        for index, start in enumerate(starts.tolist() if count else ()):
            if start + count > len(self._data):
                raise UnexpectedEofError(
                    f"{asked(self._path, start, count)}: record {index} passes the end of an object of"
                    f" {len(self._data)} bytes",
                    path=self._path,
                    offset=start,
                    limit=count,
                    index=index,
                )
        table = self._reactor.allocate((starts.size, count))
        if table.nbytes:
            memory = self._reactor.writable(table).cast("B")
            for index, start in enumerate(starts.tolist()):
                memory[index * count : (index + 1) * count] = self._data[start : start + count]
        return table

    # Awaited, everything is done by the call.

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        return at_once(self.read_at, offset, limit)

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        return at_once(self.read_into, buffer, offset)

    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        return at_once(self.read_batch, offsets, length)

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        return at_once(self.fetch, starts, lengths, chunk=chunk, concurrent=concurrent)

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        waiter.set_result(self.read_at(offset, limit))

    def turn(self) -> Awaitable[object]:
        return at_once(self._check_open, None, None)

    def stat_async(self) -> Awaitable[Stat]:
        return at_once(self.stat)

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        requests = zip(starts.tolist(), lengths.tolist(), strict=True)
        return [self._fetch_one(start, length, chunk) for start, length in requests]

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
        return ((index, self._fetch_one(start, length, chunk)) for index, (start, length) in requests)

    def _fetch_one(self, start: int, length: int, chunk: int | None) -> "Buffer":
        """One request in pieces of `chunk` bytes, each put in its place."""
        stop = min(start + length, len(self._data))
        buffer = self._reactor.allocate(max(0, stop - start))
        for first, last in split(start, stop, chunk) if start < stop else ():
            self._reactor.writable(buffer)[first - start : last - start] = self._data[first:last]
        return buffer

    def near(self) -> int:
        return 0

    def stat(self) -> Stat:
        self._check_open(None, None)
        return Stat(self._path, len(self._data), pin=f"{len(self._data):x}-{crc32(self._data):08x}")

    def within(self, timeout: Timeout) -> "MemorySource":
        return self

    def close(self) -> None:
        """Refuse new reads. The bytes stay with the service that has them."""
        self._closed = True

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self._closed:
            raise from_native("closed", 0, self._path, offset, limit, "")


class MemoryService:
    """`objects` by path. It is looked into at every `open`, so it may grow; bytes of an object never change."""

    scheme = "memory"
    defaults = Options()
    versions = False

    def __init__(self, reactor: "Reactor", objects: Mapping[str, bytes] | None = None) -> None:
        self._reactor = reactor
        self._objects = {} if objects is None else objects

    def open(self, path: str, options: Options) -> MemorySource:
        try:
            data = self._objects[path]
        except KeyError:
            raise NotFoundError(
                f"no object {path!r} in memory; {closest(path, list(self._objects))}", path=path, errno=ENOENT
            ) from None
        return MemorySource(self._reactor, path, data)

    def address(self, path: str) -> str:
        return path

    def absolute(self, path: str) -> str:
        return path

    def shown(self, path: str) -> str:
        return path

    def for_one(self) -> None:
        pass

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        found = (
            Stat(path, len(data)) for path, data in sorted(self._objects.items()) if path.startswith(prefix)
        )
        return rolled_up(found, prefix, delimiter)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return [self._read_file(path, start, stop, options) for path, start, stop in jobs]

    def _read_file(
        self, path: str, start: int, stop: int | None, options: Options
    ) -> "Buffer | BaseException":
        try:
            return self.open(path, options).read_at(start, (OPEN if stop is None else stop) - start)
        except Error as error:
            return error
