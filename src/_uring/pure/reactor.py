"""The interface of the native core in pure Python: backend ``python``, for installations without the extension.

It has the same results and errors, over os.preadv, with a pool of threads for many reads at once. It is slower: no
ring, no O_DIRECT, no recycled memory, and every async read goes through a thread.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, SupportsIndex

from _uring.arguments import OFFSET_MAX, byte_index
from _uring.errors import make_error, set_error_factory, without_frames
from _uring.pure.buffer import Buffer, as_unfinished, unfinished_memory
from _uring.pure.descriptor import open_descriptor
from _uring.pure.open_file import OpenFile
from _uring.pure.workers import Process
from _uring.records import Backend, FileStat

if TYPE_CHECKING:
    pass

from _uring.pure.file import File

__all__ = ["Backend", "Buffer", "File", "FileStat", "Reactor", "set_error_factory"]

# Why this backend is used; `_uring` replaces it if the extension is missing.
reason = "the pure-Python backend was requested"


class Reactor:
    """Owns the threads and the counters. `entries` and `pool_bytes` have no effect: no ring, no memory pool."""

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
        self._own: Process | None = None

    def _current(self, getpid: Callable[[], int] = os.getpid) -> Process:
        """The state of this process. setdefault() is atomic, so concurrent first calls get the same object.

        Mostly without a method of a dict: where there is no GIL it takes a lock, which stays taken in a child that
        another thread forks then. (The default argument: see `OpenFile.close`.)
        """
        own = self._own
        if own is None or not own.is_own():
            own = self._own = self._processes.setdefault(getpid(), Process(self._workers))
        return own

    @property
    def backend(self) -> Backend:
        return Backend("python", reason, "", ())

    def open(
        self,
        path: str | bytes,
        *,
        direct: bool | Literal["auto"] = "auto",
        pin: bool = True,
        mapped: bool = True,
    ) -> File:
        self._check_arguments(direct)
        name = os.fsdecode(path)
        fd = open_descriptor(name)
        try:
            return File(OpenFile(self._current, fd, name, pin=pin, owned=True))
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
        mapped: bool = True,
        path: str = "",
    ) -> File:
        self._check_arguments(direct)
        number = byte_index(fd, "fd")
        return File(OpenFile(self._current, number, path or f"<fd {number}>", pin=pin, owned=closefd))

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

        return self._current().spread(len(jobs), 0, read)

    def allocate(self, shape: SupportsIndex | tuple[int, int]) -> Buffer:
        """A Buffer of `shape` bytes, or a table of (records, length). The memory is not initialized."""
        self._check_arguments(False)
        extents = shape if isinstance(shape, tuple) else (shape,)
        return as_unfinished(
            self._current().memory.allocate(*(byte_index(extent, "shape") for extent in extents))
        )

    def writable(self, buffer: Buffer) -> memoryview:
        return unfinished_memory(buffer)

    def steady(
        self,
        idle: object,
        request: object,
        give_back: object,
        *,
        most: int,
        absolute: bool,
        good_s: float,
        timeout: object,
        asked: object,
        answered: object,
        measured: object,
    ) -> None:
        """None: not available without the extension."""

    def count(self, asked: int, fetched: int) -> None:
        self._current().count(asked, fetched)

    def stats(self) -> dict[str, int]:
        own = self._current()
        bytes_live = own.memory.bytes_live
        return {
            "reads": own.reads,
            "bytes_asked": own.bytes_asked,
            "bytes_fetched": own.bytes_fetched,
            "inline_hits": 0,
            "mapped_reads": 0,
            "ring_enters": 0,
            "ring_reads": 0,
            "pool_reads": own.pool_reads,
            "fallbacks": 0,
            "buffers_live": own.memory.buffers_live,
            "bytes_live": bytes_live,
            "bytes_pooled": 0,
            "bytes_mapped": bytes_live,
            "file_bytes_mapped": 0,
            "mapped_drops": 0,
            "files_open": own.files_open,
            "in_flight": own.in_flight,
        }

    def close(self) -> None:
        """Refuse new files, and end the worker threads. Open files stay readable. A second call does nothing."""
        self._closed = True
        self._current().dismiss()

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
