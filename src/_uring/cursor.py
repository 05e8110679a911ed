"""Where a file object over a range is, and how much it reads at a time.

Plain Python, and compiled where there is a compiler (cursor.pxd gives the types): a BufferedReader calls `seek` and
`readinto` for every few kilobytes, and a frame of the interpreter for each would cost as much as the read.
"""

import errno
import io
import os
from collections.abc import Callable
from operator import index
from typing import Any

from _uring.arguments import OFFSET_MAX, writable_bytes

GROWTH = 4


class Cursor:
    """A place in bytes `start` to `stop` of what `read_into(buffer, offset)` reads. Not for two threads at once.

    A BufferedReader offers its whole buffer to every read, so it is decided here how much of it to fill: `first` after
    a seek, four times as much for each read that goes on where the last one ended. That is what tells reading through
    from reading here and there. Everybody else's memory is filled, as by a read of a regular file: callers of a raw
    file take fewer bytes for its end, though io.RawIOBase allows them (pyarrow: for a corrupt file).
    """

    def __init__(
        self,
        read_into: Callable[[memoryview, int], int],
        start: int,
        stop: int,
        first: int,
        buffer_size: int,
        find_end: Callable[[], int],
    ) -> None:
        """buffer_size: of the BufferedReader over it, 0 if there is none. find_end: the stop, where that is
        OFFSET_MAX.
        """
        self.read_into = read_into
        self.find_end = find_end
        self.start = start
        self.stop = stop
        self.buffer_size = buffer_size
        self.at = start
        self.expected = -1
        self.first = self.span = first
        self.wanted = start
        self.closed = False

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, or what a BufferedReader offers, as far as that is good; fewer bytes at the end of the range.

        0 only there, or where `buffer` has no bytes.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        offered = type(buffer) is memoryview and _is_buffered_readers(buffer)
        view = buffer if offered else writable_bytes(buffer)
        size = len(view)
        if size == 0:
            return 0  # says nothing about the end, nor about what is read next
        want = size
        if offered and size <= self.buffer_size:
            self.span = min(self.span * GROWTH, size) if self.at == self.expected else self.first
            want = min(size, max(self.span, self.wanted - self.at))
        want = max(0, min(want, self.stop - self.at))
        got: int = self.read_into(view if want == size else view[:want], self.at)
        self.at += got
        self.expected = self.at
        return got

    def want(self, place: int) -> None:
        """The reads that follow are for what lies before `place`."""
        self.wanted = self.start + place

    def seek(self, offset: Any, whence: int = os.SEEK_SET) -> int:
        """Move, past the end too, where reading then finds nothing. Costs no read.

        OSError (EINVAL) before the start and beyond 2**63 - 1, as of real files: zipfile counts on it.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        place = index(offset)
        if whence == 1:
            place += self.at - self.start
        elif whence == 2:
            if self.stop == OFFSET_MAX:
                self.stop = self.find_end()
            place += self.stop - self.start
        elif whence != 0:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if not 0 <= place <= OFFSET_MAX - self.start:
            raise OSError(errno.EINVAL, f"cannot seek to {place}: it is before the start, or too far")
        self.at = self.start + place
        return place

    def tell(self) -> int:
        """The place, counted from the start of the range."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self.at - self.start

    def seekable(self) -> bool:
        """Always. Asked before every seek."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return True

    def left(self) -> int:
        """Bytes from here to the end of the range."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return max(0, self.stop - self.at)

    def move(self, nbytes: int) -> None:
        """Go on by so many bytes, which were read in another way."""
        self.at += nbytes

    def close(self) -> None:
        """Refuse everything from now on."""
        self.closed = True


def _is_buffered_readers(view: memoryview) -> bool:
    """Whether a BufferedReader has made it. Such a view has no owner in CPython (Modules/_io/bufferedio.c,
    _bufferedreader_raw_read), and in PyPy the reader itself; those of everybody else have another.
    """
    owner = view.obj
    # Those that C code makes of memory may have no owner either, and items of several bytes.
    return view.nbytes == len(view) if owner is None else isinstance(owner, io.BufferedReader)
