"""A file object over a Reader that any number of threads may share, and that keeps what it has read."""

import errno
import io
import threading
from collections.abc import Callable, Iterable
from operator import index
from typing import Any

from _uring.arguments import writable_bytes
from rangeio.adapters.cached.blocks import Blocks, Ranged
from rangeio.locks import begin_lock

_MOST_OFFSET = 2**63 - 1


class CachedFile(io.BufferedIOBase):
    """One object as a file for reading.

    A `seek` and the `read` after it in one thread belong together, whatever other threads do with the file meanwhile. A
    read without a seek of its own continues where the last read of any thread ended, so a file can be handed over.
    Opening sends no request; the size comes with the first response.
    """

    _lock: threading.RLock
    mode = "rb"
    blocksize = 8 << 20

    def __init__(self, reader: Ranged, most: int | None, **how: Any) -> None:
        """Closing the file closes the reader. most, how: see `Blocks`."""
        begin_lock(self)
        self._reader = reader
        self._blocks = Blocks(reader, most, **how)
        self._at = 0
        self._sought: dict[int, int] = {}  # the place that each thread has sought and not read yet

    # --- the position --------------------------------------------------------------------------------------------

    def seek(self, offset: Any, whence: int = 0, /) -> int:
        """Move the position, also past the end. OSError (EINVAL) before the start. Only the size is requested."""
        self._check_open()
        place = index(offset)
        if whence == 1:
            place += self.tell()
        elif whence == 2:
            place += self._blocks.size(-place)
        elif whence != 0:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if not 0 <= place <= _MOST_OFFSET:
            raise OSError(errno.EINVAL, f"cannot seek to {place}: it is before the start, or too far")
        with self._lock:
            # A thread that C++ has begun has a new thread state for each call, so threading.local would forget.
            self._sought[threading.get_native_id()] = self._at = place
        return place

    def tell(self) -> int:
        """The position of the next read in this thread."""
        self._check_open()
        with self._lock:
            return self._sought.get(threading.get_native_id(), self._at)

    def _moved(self, count: int) -> int:
        """The position, which moves by `count`."""
        with self._lock:
            at = self._sought.pop(threading.get_native_id(), self._at)
            self._at = at + count
        return at

    def _settle(self, at: int, asked: int, got: int) -> None:
        """A read was short: the position is after what it got, unless another thread has moved it."""
        if got < asked:
            with self._lock:
                if self._at == at + asked:
                    self._at = at + got

    def _take(self, count: int, read: Callable[[int, int], Any]) -> Any:
        self._check_open()
        at = self._moved(count)
        try:
            data = read(at, count)
        except BaseException:
            self._settle(at, count, 0)
            raise
        self._settle(at, count, len(data))
        return data

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; the rest if negative or None."""
        return bytes(self._take(self._limit(size), self._blocks.read))

    def read1(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes; without a size what one request brings."""
        return self.read(self.blocksize if size is None or size < 0 else size)

    def read_buffer(self, size: int | None = -1, /) -> Any:
        """Like `read`, without a copy where that is possible."""
        return self._take(self._limit(size), self._blocks.read)

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer. Returns the bytes read, fewer only at the end."""
        view = writable_bytes(buffer)
        data = self._take(len(view), self._blocks.read)
        view[: len(data)] = data
        return len(data)

    def readinto1(self, buffer: Any, /) -> int:
        """Like `readinto`."""
        return self.readinto(buffer)

    def peek(self, size: int = 1, /) -> bytes:
        """The next bytes without moving: at least one, except at the end. `readline` uses it."""
        self._check_open()
        return bytes(self._blocks.peek(self.tell(), max(1, size)))

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, at most `size` bytes of it."""
        # Python's own counts `size` anew after each peek (Modules/_io/iobase.c), so it may read too much.
        line = super().readline(size)
        if size is None or not 0 <= index(size) < len(line):
            return line
        self.seek(size - len(line), 1)
        return line[:size]

    def _limit(self, size: int | None) -> int:
        if size is None or size < 0:
            self._check_open()
            return max(0, self._blocks.size() - self.tell())
        return index(size)

    # --- the rest ------------------------------------------------------------------------------------------------

    def load(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch (start, stop) ranges, all at once. They are kept as far as there is room, and read from there."""
        self._check_open()
        self._blocks.load(ranges)

    @property
    def size(self) -> int:
        """Size of the object in bytes; requested if it is not known yet."""
        self._check_open()
        return self._blocks.size()

    @property
    def name(self) -> str:
        """The path of the object."""
        return self._reader.path

    def readable(self) -> bool:
        """Always True."""
        self._check_open()
        return True

    def seekable(self) -> bool:
        """Always True."""
        self._check_open()
        return True

    def write(self, data: Any, /) -> int:
        """Not supported."""
        raise io.UnsupportedOperation("not writable: rangeio is read-only")

    def close(self) -> None:
        """Close the file and its Reader. Buffers that it has returned stay valid."""
        if not self.closed:
            super().close()
            self._reader.close()
            self._blocks.clear()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self._reader, self._blocks.how, self.tell())

    def __repr__(self) -> str:
        return f"<rangeio.{type(self).__name__} {self._reader.path!r}{' closed' if self.closed else ''}>"


def _reopened(kind: Callable[..., CachedFile], reader: Ranged, how: dict[str, Any], at: int) -> CachedFile:
    file = kind(reader, **how)
    file.seek(at)
    return file


def checked_cache(cache: int) -> int:
    """A number of bytes to keep. ValueError if it is negative."""
    if index(cache) < 0:
        raise ValueError(f"cache must be 0 or more bytes, not {cache}")
    return index(cache)


def open_cached(reader: Ranged, buffer_size: int | None, cache: int, *, spread: bool) -> CachedFile:
    """A CachedFile with a cache. buffer_size: maximum read-ahead. ValueError unless that is at least 1."""
    if buffer_size is not None and index(buffer_size) < 1:
        raise ValueError("buffer size must be strictly positive")
    return CachedFile(reader, buffer_size, cache=checked_cache(cache), spread=spread)
