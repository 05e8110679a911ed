"""The surface of the native core in pure Python: backend ``python``, for where the extension is not.

The same results and the same errors over os.preadv, and a pool of threads for many reads at once. What it cannot
offer is the speed: no ring, no O_DIRECT, no recycled memory.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from _uring.array_buffer import Buffer
from _uring.descriptor import difference, identify, is_synthetic, open_descriptor, pread, read_into
from _uring.surface import (
    OFFSET_MAX,
    Backend,
    FileStat,
    byte_array,
    byte_arrays,
    byte_index,
    make_error,
    set_error_factory,
    without_frames,
    writable_bytes,
)
from _uring.threads import Process

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

__all__ = ["Backend", "Buffer", "File", "FileStat", "Reactor", "set_error_factory"]

# Reads above this are checked against the pin every time: an fstat is nothing beside them.
_SMALL = 64 << 10
_RECHECK_NS = 1_000_000_000
_REASON = "the pure-Python backend was asked for, or the extension is not there"


class File:
    """One open regular file, read by position. No cursor; any thread may call anything."""

    direct = False
    direct_reason = "the python backend does not use O_DIRECT"
    alignment = 0

    def __init__(self, reactor: "Reactor", fd: int, path: str, *, pin: bool, owned: bool) -> None:
        """Takes over `fd` if `owned`, else duplicates it, so that its number cannot come to mean another file."""
        known = identify(fd, path)
        self._synthetic = is_synthetic(fd)
        self._fd = fd if owned else os.dup(fd)
        if hasattr(os, "set_blocking"):
            os.set_blocking(self._fd, True)
        self.path = path
        self._reactor = reactor
        self._pin = known if pin and not self._synthetic else None
        self._checked_ns = time.monotonic_ns()
        self._closed = False
        self._users = 0
        self._process: Process | None = None
        self._join(reactor.process)

    def _join(self, process: Process) -> None:
        """Count in `process`: at opening, and once more in a forked child, where the parent's readers do not exist."""
        with process.lock:
            if self._process is not process:
                self._process = process
                self._users = 0
                process.files_open += not self._closed

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def size(self) -> int | None:
        if self._synthetic:
            return None
        if self._pin is not None:
            return self._pin.size
        process = self._enter()
        try:
            return identify(self._fd, self.path).size
        finally:
            self._leave(process)

    def fileno(self) -> int:
        if self._closed:
            raise make_error("closed", path=self.path)
        return self._fd

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> Buffer:
        offset, limit = byte_index(offset, "offset"), byte_index(limit, "limit")
        process = self._enter(offset, limit)
        try:
            buffer = self._fetch(process, offset, limit)
            self._recheck(offset, limit)
            return buffer
        finally:
            self._leave(process)

    def read_into(self, buffer: "SupportsBuffer", offset: SupportsIndex = 0) -> int:
        offset, view = byte_index(offset, "offset"), writable_bytes(buffer)
        process = self._enter(offset, len(view))
        try:
            got = self._fill(view[: OFFSET_MAX - offset], offset)
            self._recheck(offset, len(view))
            process.count(len(view), got)
            return got
        finally:
            self._leave(process)

    def read_many(self, starts: Any, lengths: Any, concurrent: int = 0) -> list[Buffer]:
        starts, lengths = (array.tolist() for array in byte_arrays(starts, lengths))
        depth = byte_index(concurrent, "concurrent")
        process = self._enter()
        try:
            buffers = process.spread(
                len(starts), depth, lambda i: self._fetch(process, starts[i], lengths[i])
            )
            if any(lengths):
                self._check_pin(None, None)
            return buffers
        finally:
            self._leave(process)

    def iter_many(self, starts: Any, lengths: Any, concurrent: int = 0) -> Iterator[tuple[int, Buffer]]:
        starts, lengths = (array.tolist() for array in byte_arrays(starts, lengths))
        depth = byte_index(concurrent, "concurrent")
        process = self._enter()
        self._leave(process)
        return process.as_completed(len(starts), depth, lambda i: self.read_at(starts[i], lengths[i]))

    def read_batch(self, offsets: Any, length: SupportsIndex) -> Buffer:
        starts, length = byte_array(offsets, "offsets"), byte_index(length, "length")
        if starts.size * length > OFFSET_MAX:
            raise OverflowError(f"{starts.size} records of {length} bytes are more than 2**63 - 1 bytes")
        process = self._enter()
        try:
            if starts.size and length:
                self._refuse_beyond_end(starts, length)
            table = process.memory.allocate(starts.size, length)
            if table.nbytes:
                self._fill_table(process, table.fill_view(), starts.tolist(), length)
                self._check_pin(None, None)
            return table
        finally:
            self._leave(process)

    def _refuse_beyond_end(self, starts: Any, length: int) -> None:
        """Before memory is taken for them: a wrong length must not cost a huge allocation."""
        size = self._check_pin(None, None).size
        if size is not None and not self._synthetic and starts.max() > size - length:
            index = int((starts > size - length).argmax())
            raise self._short_record(index, int(starts[index]), length, max(0, size - int(starts[index])))

    def _fill_table(self, process: Process, view: memoryview, starts: list[int], length: int) -> None:
        def fill(index: int) -> None:
            got = self._fill(view[index * length : (index + 1) * length], starts[index])
            process.count(length, got)
            if got < length:
                raise self._short_record(index, starts[index], length, got)

        process.spread(len(starts), 0, fill)

    def _short_record(self, index: int, offset: int, length: int, got: int) -> BaseException:
        return make_error("eof", 0, self.path, offset, length, f"record {index} has {got} of {length} bytes")

    def stat(self) -> FileStat:
        process = self._enter()
        try:
            now = self._check_pin(None, None)
            return now._replace(size=None) if self._synthetic else now
        finally:
            self._leave(process)

    def close(self) -> None:
        process = self._reactor.process
        self._join(process)
        with process.lock:
            if self._closed:
                return
            self._closed = True
            process.files_open -= 1
            idle = self._users == 0
        if idle:
            os.close(self._fd)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __repr__(self) -> str:
        return f"<File {self.path!r}{' closed' if self._closed else ''}>"

    def _enter(self, offset: int | None = None, limit: int | None = None) -> Process:
        """Keep the descriptor open until `_leave`. Raises if closed."""
        process = self._reactor.process
        if self._process is not process:
            self._join(process)
        with process.lock:
            if self._closed:
                raise make_error("closed", 0, self.path, offset, limit, "")
            self._users += 1
            process.in_flight += 1
        return process

    def _leave(self, process: Process) -> None:
        with process.lock:
            self._users -= 1
            process.in_flight -= 1
            last = self._closed and self._users == 0
        if last:
            os.close(self._fd)

    def _fetch(self, process: Process, offset: int, limit: int) -> Buffer:
        """One range in a Buffer of its own, memory taken for what the file has of it at most."""
        want = min(limit, OFFSET_MAX - offset)
        if self._synthetic:
            buffer = self._fetch_unsized(process, offset, want)
            want = min(want, buffer.nbytes)
        else:
            if want > _SMALL:
                size = self._pin.size if self._pin is not None else identify(self._fd, self.path).size
                want = max(0, min(want, (size or 0) - offset))
            buffer = process.memory.allocate(want)
            got = self._fill(buffer.fill_view(), offset)
            if got < want:
                buffer = buffer[:got]
        if limit:
            process.count(want, buffer.nbytes)
        return buffer

    def _fetch_unsized(self, process: Process, offset: int, limit: int) -> Buffer:
        """Read until nothing comes: such a file is made up while it is read, and has no size before that."""
        data = bytearray()
        while len(data) < limit:
            try:
                piece = pread(self._fd, min(limit - len(data), 1 << 20), offset + len(data))
            except OSError as error:
                raise make_error("errno", error.errno or errno.EIO, self.path, offset, limit) from error
            if not piece:
                break
            data += piece
        buffer = process.memory.allocate(len(data))
        buffer.fill_view()[:] = data
        return buffer

    def _fill(self, view: memoryview, offset: int) -> int:
        """Fill `view`; short only at the end of the file, which is then checked to be where it was."""
        try:
            got = read_into(self._fd, view, offset)
        except OSError as error:
            raise make_error("errno", error.errno or errno.EIO, self.path, offset, len(view)) from error
        if self._pin is not None and view:
            size = self._pin.size or 0
            if got < len(view) or offset + got > size:
                self._check_pin(offset, len(view))
                if offset + got < min(size, offset + len(view)):
                    detail = f"reading stopped at byte {offset + got} of a file of {size} bytes"
                    raise make_error("eof", 0, self.path, offset, len(view), detail)
        return got

    def _recheck(self, offset: int, limit: int) -> None:
        """After a read, so that what it returned is covered: every large one, and a small one once a second."""
        if limit and (limit > _SMALL or time.monotonic_ns() - self._checked_ns > _RECHECK_NS):
            self._check_pin(offset, limit)

    def _check_pin(self, offset: int | None, limit: int | None) -> FileStat:
        now = identify(self._fd, self.path)
        if self._pin is not None:
            if now != self._pin:
                raise make_error("changed", 0, self.path, offset, limit, difference(self._pin, now))
            self._checked_ns = time.monotonic_ns()
        return now


class Reactor:
    """Owns the threads and the counters. `entries` and `pool_bytes` mean nothing: no ring, no pool of memory."""

    def __init__(
        self,
        *,
        entries: int = 256,
        pool_bytes: int | None = None,
        backend: Literal["auto", "uring", "pool", "python"] = "auto",
        workers: int = 8,
    ) -> None:
        if backend not in ("auto", "uring", "pool", "python"):
            raise ValueError(f"backend must be 'auto', 'uring', 'pool' or 'python', not {backend!r}")
        if backend not in ("auto", "python"):
            raise make_error("unsupported", detail=f"backend {backend!r} needs the compiled extension")
        if min(entries, workers) < 1 or (pool_bytes is not None and pool_bytes < 0):
            raise ValueError("entries and workers must be at least 1, pool_bytes at least 0")
        self._workers = workers
        self._closed = False
        self._processes: dict[int, Process] = {}

    @property
    def process(self) -> Process:
        """This process's part of the reactor; setdefault() is atomic, so two first users get the same."""
        own = self._processes.get(os.getpid())
        return own if own is not None else self._processes.setdefault(os.getpid(), Process(self._workers))

    @property
    def backend(self) -> Backend:
        return Backend("python", _REASON, "", ())

    def open(self, path: str | bytes, *, direct: bool | Literal["auto"] = "auto", pin: bool = True) -> File:
        self._check_arguments(direct)
        name = os.fsdecode(path)
        fd = open_descriptor(name)
        try:
            return File(self, fd, name, pin=pin, owned=True)
        except BaseException:
            os.close(fd)
            raise

    def from_fd(
        self,
        fd: int,
        *,
        closefd: bool = False,
        direct: bool | Literal["auto"] = "auto",
        pin: bool = True,
        path: str = "",
    ) -> File:
        self._check_arguments(direct)
        return File(self, byte_index(fd, "fd"), path or f"<fd {fd}>", pin=pin, owned=closefd)

    def read_files(
        self, jobs: Sequence[tuple[str, int, int | None]], *, pin: bool = True
    ) -> list[Buffer | BaseException]:
        self._check_arguments(False)
        ranges = [_job_range(start, stop) for _, start, stop in jobs]

        def read(index: int) -> Buffer | BaseException:
            try:
                file = self.open(jobs[index][0], pin=pin)
                try:
                    return file.read_at(*ranges[index])
                finally:
                    file.close()
            except Exception as error:
                return without_frames(error)

        return self.process.spread(len(jobs), 0, read)

    def allocate(self, shape: SupportsIndex | tuple[int, int]) -> Buffer:
        """A Buffer of so many bytes, or a table of (records, length); its content is whatever was there."""
        self._check_arguments(False)
        extents = shape if isinstance(shape, tuple) else (shape,)
        return self.process.memory.allocate(*(byte_index(extent, "shape") for extent in extents))

    def writable(self, buffer: Buffer) -> memoryview:
        return buffer.fill_view()

    def stats(self) -> dict[str, int]:
        own = self.process
        bytes_live = own.memory.bytes_live
        return {
            "reads": own.reads,
            "bytes_asked": own.bytes_asked,
            "bytes_fetched": own.bytes_fetched,
            "inline_hits": 0,
            "ring_enters": 0,
            "ring_reads": 0,
            "pool_reads": own.pool_reads,
            "fallbacks": 0,
            "buffers_live": own.memory.buffers_live,
            "bytes_live": bytes_live,
            "bytes_pooled": 0,
            "bytes_mapped": bytes_live,
            "files_open": own.files_open,
            "in_flight": own.in_flight,
        }

    def close(self) -> None:
        """Open nothing more, and end the worker threads once their reads are done. A second call does nothing."""
        self._closed = True
        own = self.process
        with own.lock:
            executor, own.executor = own.executor, None
        if executor is not None:
            executor.shutdown()

    def _check_arguments(self, direct: object) -> None:
        if self._closed:
            raise make_error("closed", detail="the reactor was closed")
        if direct not in (True, False, "auto"):
            raise ValueError(f"direct must be True, False or 'auto', not {direct!r}")


def _job_range(start: int, stop: int | None) -> tuple[int, int]:
    first = byte_index(start, "start")
    last = OFFSET_MAX if stop is None else byte_index(stop, "stop")
    if first > last:
        raise ValueError(f"start {first} is after stop {last}")
    return first, last - first
