# cython: freethreading_compatible=True
# What of it is an object never changes; two threads at one cursor get a wrong position, as the class says, and no more.
"""The position of a file object over a range, and the size of its reads.

Plain Python, and compiled if there is a compiler (cursor.pxd gives the types). A BufferedReader calls `seek` and
`readinto` for every few kilobytes; an interpreter frame for each call would cost as much as the read.
"""

import errno
import io
import os
from collections.abc import Callable
from operator import index
from typing import Any

from _uring.arguments import OFFSET_MAX, writable_bytes

GROWTH = 4
# `first` may grow to this: larger reads after a seek then take a second read each.
LARGEST_FIRST = 8 << 10


class Cursor:
    """A position in the bytes `start` to `stop` of what `read_into(buffer, offset)` reads. Not thread-safe.

    A BufferedReader offers its whole buffer for every read, so the cursor decides how much of it to fill: `first` bytes
    after a seek, and four times as much for each read that continues where the last one ended. This distinguishes
    sequential from random reading. If `first` bytes after a seek were too few, they are doubled, up to 8 KiB.

    Other buffers are filled completely, as by a read of a regular file: callers of a raw file take a short read for the
    end of the file, though io.RawIOBase allows it (pyarrow: for a corrupt file).
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
        """buffer_size: of the BufferedReader over this cursor, else 0. find_end: returns the end of the object; called
        if `stop` is OFFSET_MAX.
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
        """Fill `buffer`, or a suitable part of it for a BufferedReader. Fewer bytes at the end of the range.

        0 only at the end, or if `buffer` has no bytes.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        offered = False
        if type(buffer) is memoryview:
            # A view that a BufferedReader has made has no owner in CPython (Modules/_io/bufferedio.c,
            # _bufferedreader_raw_read), and the reader itself in PyPy. Views that C code makes of plain memory may have
            # none either, but may have items of several bytes. Not a function: a call costs 3 % of the read.
            owner = buffer.obj
            offered = buffer.nbytes == len(buffer) if owner is None else isinstance(owner, io.BufferedReader)
        view = buffer if offered else writable_bytes(buffer)
        size = len(view)
        if size == 0:
            return 0  # without effect on the position or the size of the next read
        want = size
        if offered and size <= self.buffer_size:
            if self.at != self.expected:
                self.span = self.first
            else:
                if self.span == self.first < LARGEST_FIRST:
                    self.first *= 2
                self.span = min(self.span * GROWTH, size)
            want = min(size, max(self.span, self.wanted - self.at))
        want = max(0, min(want, self.stop - self.at))
        got: int = self.read_into(view if want == size else view[:want], self.at)
        self.at += got
        self.expected = self.at
        return got

    def want(self, place: int) -> None:
        """Announce that the next reads are for bytes before `place`."""
        self.wanted = self.start + place

    def seek(self, offset: Any, whence: int = os.SEEK_SET) -> int:
        """Move the position. Past the end is allowed; reads there return nothing. Costs no read.

        OSError (EINVAL) before the start and beyond 2**63 - 1, as for regular files: zipfile relies on it.
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
        """The position, relative to the start of the range."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self.at - self.start

    def seekable(self) -> bool:
        """Always True. A BufferedReader calls it before every seek."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return True

    def left(self) -> int:
        """Bytes from the position to the end of the range."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return max(0, self.stop - self.at)

    def move(self, nbytes: int) -> None:
        """Advance by `nbytes` that were read without the cursor."""
        self.at += nbytes

    def close(self) -> None:
        """Make all later calls raise ValueError."""
        self.closed = True
