"""A range as a file with a cursor, with Python's own interface (io.RawIOBase, io.BufferedReader)."""

import io
from collections.abc import Callable
from typing import Any, TypeVar

from _uring.arguments import writable_bytes
from _uring.cursor import Cursor
from rangeio.ranges import OPEN
from rangeio.service import NEAR, Source

_T = TypeVar("_T")
# A BufferedReader takes memory for what it is asked for. From so many bytes on, the size of the object is looked at.
_UNBOUNDED = 64 << 20


class RangeFile(io.RawIOBase):
    """Bytes `start` to `stop` of a Source as a raw file. `seek` reads nothing; closing it leaves the Source open.

    Its methods are the bound methods of its `Cursor`.
    """

    closed = False
    """An attribute instead of a property, because a BufferedReader checks it before each operation."""

    def __init__(self, source: Source, start: int, stop: int, buffer_size: int = 0) -> None:
        """buffer_size: of the BufferedReader over this file, 0 if there is none."""
        self._source = source
        self._start, self._stop = start, stop

        def find_end() -> int:
            """The end of the object. Asks the service if it is unknown; if the service does not know it, reads all."""
            size = source.stat().size if source.size is None else source.size
            return max(start, len(source.read_at(0, OPEN)) if size is None else size)

        self._find_end = find_end
        first = source.read_ahead.first
        self._cursor = Cursor(source.read_into, start, stop, first, buffer_size, find_end)
        self.want = self._cursor.want
        self.readinto = self._cursor.readinto  # type: ignore[method-assign]
        self.seek = self._cursor.seek  # type: ignore[method-assign]
        self.tell = self._cursor.tell  # type: ignore[method-assign]
        self.readable = self.seekable = self._cursor.seekable  # type: ignore[method-assign]

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; the rest of the range if negative or None."""
        left = self._cursor.left()
        limit = left if size is None or size < 0 else min(size, left)
        found = bytes(self._source.read_at(self._cursor.tell() + self._start, limit))
        self._cursor.move(len(found))
        return found

    def bounded(self, size: int, place: int) -> int:
        """`size`, but if that is large, no more than there is after `place`."""
        size = min(size, max(0, self._stop - self._start - place))
        if size <= _UNBOUNDED:
            return size
        return min(size, max(0, self._find_end() - self._start - place))

    def readall(self) -> bytes:
        """Read the rest of the range."""
        return self.read()

    def write(self, data: object, /) -> int:
        """Not supported."""
        raise io.UnsupportedOperation("not writable: rangeio is read-only")

    def close(self) -> None:
        """Close the file; the Reader stays open."""
        super().close()
        self._cursor.close()
        self.closed = True

    @property
    def name(self) -> str:
        """The path of the object."""
        return self._source.path

    @property
    def mode(self) -> str:
        """The mode of the file, "rb"."""
        return "rb"

    def __repr__(self) -> str:
        return f"<rangeio.RangeFile {self.name!r}{' closed' if self.closed else ''}>"


class FarFile(io.BufferedReader):
    """A buffered file over a network: fetches the requested bytes of a call with one request.

    A BufferedReader always asks its raw file for its whole buffer, so this class passes on the requested size as well.
    """

    raw: RangeFile

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        size = self._bounded(size)
        return self._with_wanted(size, lambda: super(FarFile, self).read(size))

    def read1(self, size: int = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        count = self._bounded(size)
        return self._with_wanted(count, lambda: super(FarFile, self).read1(count))

    def readinto(self, buffer: Any, /) -> int:
        """See `io.BufferedReader`."""
        view = writable_bytes(buffer)
        return self._with_wanted(len(view), lambda: super(FarFile, self).readinto(view))

    def readinto1(self, buffer: Any, /) -> int:
        """See `io.BufferedReader`."""
        view = writable_bytes(buffer)
        return self._with_wanted(len(view), lambda: super(FarFile, self).readinto1(view))

    def _bounded(self, size: Any) -> Any:
        large = isinstance(size, int) and size > _UNBOUNDED and not self.closed
        return self.raw.bounded(size, self.tell()) if large else size

    def _with_wanted(self, size: int | None, read: Callable[[], _T]) -> _T:
        if self.closed or size is None or size <= 0:
            return read()
        self.raw.want(self.tell() + size)
        try:
            return read()
        finally:
            self.raw.want(0)


def open_file(source: Source, start: int, stop: int, buffer_size: int | None) -> io.BufferedReader:
    """A RangeFile under a buffer of `buffer_size` bytes. ValueError unless that is at least 1."""
    size = source.read_ahead.most if buffer_size is None else buffer_size
    raw = RangeFile(source, start, stop, size)
    # The C class for local reads: a method in Python would cost a tenth of a read.
    return io.BufferedReader(raw, size) if source.read_ahead is NEAR else FarFile(raw, size)
