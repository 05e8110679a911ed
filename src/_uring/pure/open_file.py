"""A descriptor of the pure-Python backend: kept open while in use, and checked to be still the file that was opened."""

import errno
import os
import time
from typing import TYPE_CHECKING

from _uring.errors import make_error
from _uring.pure.descriptor import difference, has_bytes_past_size, identify, is_synthetic, pread, read_into
from _uring.pure.workers import Process
from _uring.records import FileStat

if TYPE_CHECKING:
    from collections.abc import Callable

# Reads above this size are checked against the pin every time: the cost of an fstat is negligible there.
SMALL = 64 << 10
_RECHECK_NS = 1_000_000_000


class OpenFile:
    """An open file. Every use of it is bracketed by `enter` and `leave`; `close` lets uses in progress finish."""

    def __init__(
        self, process: "Callable[[], Process]", fd: int, path: str, *, pin: bool, owned: bool
    ) -> None:
        """Take over `fd` if `owned`; otherwise duplicate it, so that its number cannot be reused for another file."""
        identify(fd, path)
        self.synthetic = is_synthetic(fd) or has_bytes_past_size(fd)
        known = identify(fd, path)
        self.fd = fd if owned else os.dup(fd)
        self.path = path
        self.pin = known if pin and not self.synthetic else None
        self.closed = False
        self._checked_ns = time.monotonic_ns()
        self._users = 0
        self._current_process = process
        self._process: Process | None = None
        self._join(process())

    def _join(self, process: Process) -> None:
        """Count the file in `process`: when opened, and again in a forked child, which has no users of it yet."""
        with process.lock:
            if self._process is not process:
                self._process = process
                self._users = 0
                process.files_open += not self.closed

    def enter(self, offset: int | None = None, limit: int | None = None) -> Process:
        """Keep the descriptor open until `leave`. Raises the "closed" error after close()."""
        process = self._current_process()
        if self._process is not process:
            self._join(process)
        with process.lock:
            if self.closed:
                raise make_error("closed", 0, self.path, offset, limit)
            self._users += 1
            process.in_flight += 1
        return process

    def leave(self, process: Process) -> None:
        """End a use that `enter` began. The last user of a closed file closes the descriptor."""
        with process.lock:
            self._users -= 1
            process.in_flight -= 1
            last = self.closed and self._users == 0
        if last:
            os.close(self.fd)

    def close(self, close: "Callable[[int], None]" = os.close) -> None:
        """Refuse further calls of `enter`. A second call does nothing.

        (The default argument: a free-threaded interpreter that ends clears all modules before it frees what they held.)
        """
        process = self._current_process()
        self._join(process)
        with process.lock:
            if self.closed:
                return
            self.closed = True
            process.files_open -= 1
            idle = self._users == 0
        if idle:
            close(self.fd)

    def size(self) -> int | None:
        """The size in bytes: as pinned, else the current one. None if the file system does not report it."""
        if self.synthetic:
            return None
        return self.pin.size if self.pin is not None else identify(self.fd, self.path).size

    def fill(self, view: memoryview, offset: int) -> int:
        """Fill `view`. Short only at the end of the file, which is then checked not to have moved."""
        try:
            got = read_into(self.fd, view, offset)
        except OSError as error:
            raise make_error("errno", error.errno or errno.EIO, self.path, offset, len(view)) from error
        if view and not self.synthetic and (got < len(view) or self._passes(offset + got)):
            size = self.check(offset, len(view)).size or 0
            if offset + got < min(size, offset + len(view)):
                detail = f"the file system reports {size} bytes but returned only {got} from there"
                raise make_error("eof", 0, self.path, offset, len(view), detail)
        return got

    def _passes(self, stop: int) -> bool:
        """Whether a read up to `stop` passes the pinned end."""
        return self.pin is not None and stop > (self.pin.size or 0)

    def read_until_nothing(self, offset: int, limit: int) -> bytearray:
        """Read a synthetic file: its content is generated on reading, and its size is unknown until then."""
        data = bytearray()
        while len(data) < limit:
            try:
                piece = pread(self.fd, min(limit - len(data), 1 << 20), offset + len(data))
            except OSError as error:
                raise make_error("errno", error.errno or errno.EIO, self.path, offset, limit) from error
            if not piece:
                break
            data += piece
        return data

    def recheck(self, offset: int, limit: int) -> None:
        """Call after a read, so that the check covers its result: checks after a large read, else once a second."""
        if limit and (limit > SMALL or time.monotonic_ns() - self._checked_ns > _RECHECK_NS):
            self.check(offset, limit)

    def check(self, offset: int | None = None, limit: int | None = None) -> FileStat:
        """The current stat. If a pinned file differs from its pin, the "changed" error for the given range."""
        now = identify(self.fd, self.path)
        if self.pin is not None:
            if now != self.pin:
                raise make_error("changed", 0, self.path, offset, limit, difference(self.pin, now))
            self._checked_ns = time.monotonic_ns()
        return now
