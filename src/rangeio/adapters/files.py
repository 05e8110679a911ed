"""A range as a file: the only cursor of the project, in Python's own shape (io.RawIOBase, io.BufferedReader)."""

import io

from _uring.cursor import Cursor
from rangeio.ranges import OPEN
from rangeio.service import Source

# Large enough that reading ahead pays for a request, small enough to stay in the second-level cache (bench: file).
_BUFFER = 128 << 10


class RangeFile(io.RawIOBase):
    """Bytes `start` to `stop` of a Source as a raw file. `seek` costs no read; closing it leaves the Source open.

    Its methods are those of its cursor (see `Cursor`), with nothing in between.
    """

    closed = False
    """An attribute, because a BufferedReader looks at it before everything it does."""

    def __init__(self, source: Source, start: int, stop: int, buffer_size: int = 0) -> None:
        """buffer_size: of the BufferedReader over it, 0 if there is none."""
        self._source = source
        self._start = start

        def find_end() -> int:
            """Where the object ends. Where nobody knows before reading, it is read to find out."""
            size = source.stat().size
            return max(start, len(source.read_at(0, OPEN)) if size is None else size)

        self._cursor = Cursor(source.read_into, start, stop, buffer_size, find_end)
        self.readinto = self._cursor.readinto  # type: ignore[method-assign]
        self.seek = self._cursor.seek  # type: ignore[method-assign]
        self.tell = self._cursor.tell  # type: ignore[method-assign]
        self.readable = self.seekable = self._cursor.seekable  # type: ignore[method-assign]

    def readall(self) -> bytes:
        """The rest of the range."""
        rest = bytes(self._source.read_at(self._cursor.tell() + self._start, self._cursor.left()))
        self._cursor.move(len(rest))
        return rest

    def write(self, data: object, /) -> int:
        """Not supported."""
        raise io.UnsupportedOperation("not writable: rangeio only reads")

    def close(self) -> None:
        """Refuse everything from now on; the Reader stays open."""
        super().close()
        self._cursor.close()
        self.closed = True

    @property
    def name(self) -> str:
        """The path of the object."""
        return self._source.path

    @property
    def mode(self) -> str:
        """How it is open, as of any file."""
        return "rb"

    def __repr__(self) -> str:
        return f"<rangeio.RangeFile {self.name!r}{' closed' if self.closed else ''}>"


def open_file(source: Source, start: int, stop: int, buffer_size: int | None) -> io.BufferedReader:
    """A RangeFile under a buffer of `buffer_size` bytes. ValueError unless that is at least 1."""
    size = _BUFFER if buffer_size is None else buffer_size
    return io.BufferedReader(RangeFile(source, start, stop, size), size)
