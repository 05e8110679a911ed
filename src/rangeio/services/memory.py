"""Objects in memory: the reference service. It is slow and simple and defines what every other service must return."""

import os
from collections.abc import Iterator, Mapping
from errno import ENOENT
from typing import TYPE_CHECKING, SupportsIndex, cast
from zlib import crc32

from _uring.arguments import byte_index, writable_bytes
from rangeio.errors import NotFoundError, closest
from rangeio.options import Options
from rangeio.ranges import split
from rangeio.reading import Destination
from rangeio.service import Capability, Location, Service, Stat, rolled_up
from rangeio.services.immediate import ImmediateSource

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor


class MemorySource(ImmediateSource):
    """One object of bytes. Reads copy into Buffers of the reactor, as in every service."""

    def __init__(self, reactor: "Reactor", path: str, data: bytes) -> None:
        self._reactor = reactor
        self._path = path
        self._data = memoryview(data)
        self._closed = False

    @property
    def path(self) -> str:
        return self._path

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def size(self) -> int | None:
        return len(self._data)

    @property
    def capability(self) -> Capability:
        return Capability(positioned=True, suffix=True, list=True, pin="immutable", backend="memory")

    def _fetch_one(self, start: int, length: int, chunk: int | None) -> "Buffer":
        """Read one request in pieces of `chunk` bytes into one Buffer."""
        stop = min(start + length, len(self._data))
        buffer = self._reactor.allocate(max(0, stop - start))
        for first, last in split(start, stop, chunk) if start < stop else ():
            self._reactor.writable(buffer)[first - start : last - start] = self._data[first:last]
        return buffer

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        self._check_open(start, len(view))
        part = self._data[start : start + len(view)]
        view[: len(part)] = part
        return len(part)

    def stat(self) -> Stat:
        self._check_open(None, None)
        return Stat(self._path, len(self._data), pin=f"{len(self._data):x}-{crc32(self._data):08x}")

    def close(self) -> None:
        """Refuse new reads. The service keeps the bytes."""
        self._closed = True


class MemoryService(Service):
    """`objects` by path. Every `open` looks up the path, so objects may be added. Bytes of an object never change."""

    scheme = "memory"
    option_names = ("objects",)

    def __init__(self, reactor: "Reactor", objects: Mapping[str, bytes] | None = None) -> None:
        self._reactor = reactor
        self._objects = {} if objects is None else objects

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        from urllib.parse import unquote_to_bytes

        return Location({}, os.fsdecode(unquote_to_bytes(rest)))

    def open(self, path: str, options: Options) -> MemorySource:
        try:
            data = self._objects[path]
        except KeyError:
            raise NotFoundError(
                f"no object {path!r} in memory; {closest(path, list(self._objects))}", path=path, errno=ENOENT
            ) from None
        return MemorySource(self._reactor, path, data)

    def uri(self, path: str) -> str:
        return f"memory://{path}"

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        found = (
            Stat(path, len(data)) for path, data in sorted(self._objects.items()) if path.startswith(prefix)
        )
        return rolled_up(found, prefix, delimiter)
