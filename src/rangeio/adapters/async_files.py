"""A range as an async file with the interface of aiofiles."""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

from _uring import yield_if_due
from _uring.arguments import OFFSET_MAX, byte_index, writable_bytes
from rangeio.service import Destination, Source

if TYPE_CHECKING:
    from typing_extensions import Self

_GROWTH = 4


class AsyncFile(AsyncIterator[bytes]):
    """A file over a range, with a cursor. One task at a time, as with any file. Seeking reads nothing.

    Sequential reads are read ahead, up to the size of the buffer. A read at another position fetches 4 KiB (over a
    network 48 KiB), or all requested bytes if more. Closing the file leaves the Reader open.
    """

    def __init__(
        self, begin: Callable[[], Awaitable[tuple[Source, int, int]]], path: str, buffer_size: int | None
    ) -> None:
        """begin: opens the object if necessary; returns the Source and the start and stop of the file in it."""
        self._begin = begin
        self._buffer_size = None if buffer_size is None else byte_index(buffer_size, "buffer_size")
        self._place: tuple[Source, int, int] | None = None
        self._ahead = memoryview(b"")  # bytes read beyond the cursor
        self._at = 0
        self._expected = -1
        self._span = 0
        self.closed = False
        self.name = path
        self.mode = "rb"

    def read(self, size: int | None = -1) -> Awaitable[bytes]:
        """Read `size` bytes, fewer only at the end; the rest of the range if negative or None."""
        return self._read(_limit(size))

    async def _read(self, size: int) -> bytes:
        await yield_if_due()
        self._check_open()
        if size <= len(self._ahead):
            return self._take(size)
        head = self._take(len(self._ahead))
        source, start, stop = await self._opened()
        if size - len(head) < self._most(source):
            await self._fill(size - len(head))
            return head + self._take(size - len(head))
        limit = min(size - len(head), stop - start - self._at)
        tail = await source.read_at_async(min(start + self._at, OFFSET_MAX), max(0, limit))
        self._move(len(tail))
        return head + bytes(tail)

    def readinto(self, buffer: Destination) -> Awaitable[int]:
        """Fill a writable buffer. Returns the bytes read; fewer than its size only at the end."""
        return self._readinto(writable_bytes(buffer))  # type: ignore[arg-type]

    async def _readinto(self, view: memoryview) -> int:
        await yield_if_due()
        self._check_open()
        done = min(len(view), len(self._ahead))
        view[:done] = self._take(done)
        if done < len(view):
            source, start, stop = await self._opened()
            rest = view[done:][: max(0, stop - start - self._at)]
            got = await source.read_into_async(rest, min(start + self._at, OFFSET_MAX))
            self._move(got)
            done += got
        return done

    async def read1(self, size: int = -1) -> bytes:
        """Read at most `size` bytes with at most one read of the object."""
        await yield_if_due()
        if not self._ahead:
            await self._fill(1)
        return self._take(len(self._ahead) if size < 0 else min(size, len(self._ahead)))

    async def peek(self, size: int = 1) -> bytes:
        """The next bytes without moving the cursor: at least one, except at the end."""
        await yield_if_due()
        if not self._ahead:
            await self._fill(max(1, size))
        return bytes(self._ahead)

    async def readline(self, size: int | None = -1) -> bytes:
        """Read to the next newline, including it, or at most `size` bytes."""
        await yield_if_due()
        limit = _limit(size)
        parts: list[bytes] = []
        found = 0
        while found < limit and not (parts and parts[-1].endswith(b"\n")):
            if not self._ahead:
                await self._fill(1)
            piece = bytes(self._ahead[: limit - found])
            if not piece:
                break
            newline = piece.find(b"\n") + 1
            parts.append(self._take(newline or len(piece)))
            found += len(parts[-1])
        return b"".join(parts)

    async def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The remaining lines; stops once they exceed `hint` bytes, if that is above 0."""
        most = hint or 0
        lines: list[bytes] = []
        total = 0
        async for line in self:
            lines.append(line)
            total += len(line)
            if 0 < most < total:  # as CPython's files do
                break
        return lines

    def __aiter__(self) -> "AsyncFile":
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def seek(self, offset: SupportsIndex, whence: int = os.SEEK_SET) -> int:
        """Move the cursor; it may be past the end, where reads return no bytes. Reads nothing.

        OSError (EINVAL) before the start and beyond 2**63 - 1, as for real files.
        """
        await yield_if_due()
        self._check_open()
        place = index(offset)
        if whence == os.SEEK_CUR:
            place += self._at
        elif whence == os.SEEK_END:
            place += await self._size()
        elif whence != os.SEEK_SET:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if not 0 <= place <= OFFSET_MAX:
            raise OSError(errno.EINVAL, f"cannot seek to {place}: before the start, or too large")
        skipped = place - self._at
        self._ahead = self._ahead[skipped:] if 0 <= skipped <= len(self._ahead) else memoryview(b"")
        self._at = place
        return place

    async def tell(self) -> int:
        """The position of the cursor from the start of the range."""
        await yield_if_due()
        self._check_open()
        return self._at

    async def readable(self) -> bool:
        """True."""
        await yield_if_due()
        return True

    async def seekable(self) -> bool:
        """True."""
        await yield_if_due()
        return True

    async def writable(self) -> bool:
        """False."""
        await yield_if_due()
        return False

    async def close(self) -> None:
        """Close the file; the Reader stays open."""
        self._close()
        await yield_if_due()

    def _close(self) -> None:
        self.closed = True
        self._ahead = memoryview(b"")

    async def __aenter__(self) -> "Self":
        await yield_if_due()
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __repr__(self) -> str:
        return f"<rangeio.AsyncFile {self.name!r} {'closed' if self.closed else f'at {self._at}'}>"

    async def _opened(self) -> tuple[Source, int, int]:
        if self._place is None:
            self._place = await self._begin()
        return self._place

    async def _size(self) -> int:
        source, start, stop = await self._opened()
        if stop == OFFSET_MAX:
            known = (await source.stat_async()).size if source.size is None else source.size
            stop = max(start, len(await source.read_at_async(0, stop)) if known is None else known)
            self._place = source, start, stop
        return stop - start

    async def _fill(self, least: int) -> None:
        """Read ahead at least `least` bytes, unless the range ends before. `_ahead` must be empty."""
        self._check_open()
        source, start, stop = await self._opened()
        goes_on = self._at == self._expected
        self._span = min(self._span * _GROWTH, self._most(source)) if goes_on else source.read_ahead.first
        limit = max(0, min(max(self._span, least), stop - start - self._at))
        self._ahead = memoryview(await source.read_at_async(min(start + self._at, OFFSET_MAX), limit))
        self._expected = self._at + len(self._ahead)

    def _most(self, source: Source) -> int:
        return source.read_ahead.most if self._buffer_size is None else self._buffer_size

    def _take(self, size: int) -> bytes:
        piece = bytes(self._ahead[:size])
        self._ahead = self._ahead[size:]
        self._at += len(piece)
        return piece

    def _move(self, nbytes: int) -> None:
        self._at += nbytes
        self._expected = self._at

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def _limit(size: Any) -> int:
    return OFFSET_MAX if size is None or size < 0 else byte_index(size, "size")
