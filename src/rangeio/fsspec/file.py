"""A file object over a Reader that any number of threads may share, for pandas, pyarrow, duckdb and others."""

import errno
import io
import threading
from collections.abc import Callable
from operator import index
from typing import Any

from _uring.arguments import writable_bytes
from rangeio.fsspec.blocks import Blocks
from rangeio.fsspec.columns import Columns, Layouts
from rangeio.fsspec.read_only import refuse
from rangeio.locks import begin_lock
from rangeio.reader import Reader

_MOST_OFFSET = 2**63 - 1


class ObjectFile(io.BufferedIOBase):
    """One object as a file for reading.

    A `seek` and the `read` after it in one thread belong together, whatever other threads do with the file meanwhile. A
    read without a seek of its own continues where the last read of any thread ended, so a file can be handed over.
    Opening sends no request; the size comes with the first response. `read_buffer` returns memory without a copy.
    """

    _lock: threading.RLock
    mode = "rb"

    def __init__(
        self,
        reader: Reader,
        path: str,
        *,
        fs: Any = None,
        again: tuple[Callable[..., "ObjectFile"], tuple[Any, ...]] | None = None,
        block_size: int | None = None,
        layouts: Layouts | None = None,
        spread: bool = True,
    ) -> None:
        """block_size: maximum read-ahead, 0 for none. again: a function and its arguments, which recreate the file in
        another process. layouts: what is known of Parquet files; None if the file is not to learn. spread: see
        `Blocks`.
        """
        begin_lock(self)
        self.path, self.fs = path, fs
        self._reader = reader
        self._again = again
        self._blocks = Blocks(reader, block_size, spread=spread)
        self._columns = (
            Columns(self._blocks, path, layouts) if layouts is not None and self._blocks.far else None
        )
        self.blocksize = block_size or (8 << 20)
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
        """Like `read`, without a copy: pyarrow calls it."""
        read = self._blocks.read if self._columns is None else self._columns.read
        return self._take(self._limit(size), read)

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

    def _limit(self, size: int | None) -> int:
        if size is None or size < 0:
            self._check_open()
            return max(0, self._blocks.size() - self.tell())
        return index(size)

    # --- the rest ------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Size of the object in bytes; requested if it is not known yet."""
        self._check_open()
        return self._blocks.size()

    @property
    def details(self) -> dict[str, Any]:
        """What the file system's `info` returns; without a file system the name, size and type."""
        if self.fs is not None:
            return dict(self.fs.info(self.path))
        return {"name": self.path, "size": self.size, "type": "file"}

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def readable(self) -> bool:
        """Always True."""
        self._check_open()
        return True

    def seekable(self) -> bool:
        """Always True."""
        self._check_open()
        return True

    def write(self, data: Any, /) -> int:
        """Not supported: rangeio only reads."""
        raise refuse("write")

    def close(self) -> None:
        """Close the file and its connections. Buffers that it has returned stay valid."""
        if not self.closed:
            super().close()
            self._reader.close()
            self._blocks.clear()
            if self._columns is not None:
                self._columns.clear()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __repr__(self) -> str:
        return f"<rangeio.fsspec.ObjectFile {self._reader.path!r}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._again is None:
            return _reopened, (ObjectFile, (self._reader, self.path), self.tell())
        return _reopened, (*self._again, self.tell())


def _reopened(make: Callable[..., ObjectFile], arguments: tuple[Any, ...], at: int) -> ObjectFile:
    file = make(*arguments)
    file.seek(at)
    return file
