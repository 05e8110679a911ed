"""Baselines of the standard library and numpy: the usual ways to read ranges, each in its best form.

Reads into memory use one destination that was touched before, so no baseline pays for first-touch page faults that
a careful user would avoid. Calls that return `bytes` must allocate.
"""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rangeio_bench.contender import Contender, FileContender, Setting
from rangeio_bench.work import Work

_MOST_AT_ONCE = 0x7FFFF000  # read(2): the kernel transfers at most this much per call
_WORKERS = 8  # as many as rangeio's own pool; more did not make any of them faster here
_DIRECT_ALIGN = 4096  # no file system requires more


class Slots:
    """The destination of every read of a work, computed before the timed section."""

    def __init__(self, setting: Setting, work: Work) -> None:
        align = _DIRECT_ALIGN if setting.direct else 1
        spans = []
        for offset, length in zip(work.offsets, work.lengths, strict=True):
            start = offset // align * align
            spans.append((start, (offset + length + align - 1) // align * align - start))
        self.table = setting.scratch.bytes(sum(length for _, length in spans))
        memory = self.table.data
        self.jobs: list[tuple[list[memoryview], int]] = []
        self.results: list[memoryview] = []
        at = 0
        for (start, span), offset, length in zip(spans, work.offsets, work.lengths, strict=True):
            self.jobs.append(([memory[at : at + span]], start))
            self.results.append(memory[at + offset - start : at + offset - start + length])
            at += span


class _Slotted(FileContender):
    """A contender that reads into slots, which are kept for each work."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._slots: dict[int, Slots] = {}

    def _slots_of(self, work: Work) -> Slots:
        # Works outlive contenders, so their ids are not reused; the warm-up run fills this.
        key = id(work)
        if key not in self._slots:
            self._slots[key] = Slots(self.setting, work)
        return self._slots[key]


class Pread(FileContender):
    """Returns bytes: one allocation per read."""

    name = "os.pread"
    calls = {"each": "loop", "batch": "loop", "ranges": "loop"}

    def _each(self, work: Work) -> bytes:
        pread, fd, length = os.pread, self.fd, work.length
        result = b""
        for offset in work.offsets:
            result = pread(fd, length, offset)
        return result

    def _batch(self, work: Work) -> list[bytes]:
        pread, fd, length = os.pread, self.fd, work.length
        return [pread(fd, length, offset) for offset in work.offsets]

    def _ranges(self, work: Work) -> list[bytes]:
        pread, fd = os.pread, self.fd
        return [pread(fd, length, offset) for offset, length in zip(work.offsets, work.lengths, strict=True)]


class Preadv(_Slotted):
    """Into touched memory: no allocation, no page fault, the minimum cost in Python."""

    name = "os.preadv"
    calls = {
        "each": "into warm memory",
        "batch": "into warm memory",
        "deep": "one at a time",
        "whole": "into warm memory",
        "blocks": "one at a time",
        "ranges": "into warm memory",
        "fill": "into warm memory",
    }
    reads_direct = True

    def _each(self, work: Work) -> memoryview:
        preadv, fd, parts = os.preadv, self.fd, [self.setting.scratch.bytes(work.length).data]
        for offset in work.offsets:
            preadv(fd, parts, offset)
        return parts[0]

    def _whole(self, work: Work) -> Any:
        table = self.setting.scratch.bytes(work.nbytes)
        view = table.data
        for at in range(0, work.nbytes, _MOST_AT_ONCE):
            os.preadv(self.fd, [view[at : at + _MOST_AT_ONCE]], at)
        return table

    def _batch(self, work: Work) -> list[memoryview]:
        preadv, fd, slots = os.preadv, self.fd, self._slots_of(work)
        for parts, offset in slots.jobs:
            preadv(fd, parts, offset)
        return slots.results

    _deep = _blocks = _ranges = _fill = _batch


class Threads(_Slotted):
    """ThreadPoolExecutor; each worker does a share of the reads."""

    name = "thread pool"
    calls = {
        "batch": f"{_WORKERS} x pread",
        "deep": "a preadv thread each",
        "whole": f"{_WORKERS} x preadv, 8 MiB chunks",
        "blocks": f"{_WORKERS} x preadv",
        "ranges": f"{_WORKERS} x pread",
        "fill": f"{_WORKERS} x preadv",
        "files": f"{_WORKERS} x open+pread+close",
    }
    reads_direct = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.workers = setting.depth or _WORKERS
        self.pool = ThreadPoolExecutor(self.workers)
        # Threads are created on demand: create all of them now.
        list(self.pool.map(lambda _: os.getpid(), range(4 * self.workers)))

    def _batch(self, work: Work) -> list[bytes]:
        """One task per worker, not per read: a future costs more than a hot read."""
        pread, fd = os.pread, self.fd
        jobs = list(zip(work.offsets, work.lengths, strict=True))

        def some(worker: int) -> list[bytes]:
            return [pread(fd, length, offset) for offset, length in jobs[worker :: self.workers]]

        result = [b""] * work.reads
        for worker, part in enumerate(self.pool.map(some, range(self.workers))):
            result[worker :: self.workers] = part
        return result

    def _into_slots(self, work: Work) -> list[memoryview]:
        preadv, fd, slots = os.preadv, self.fd, self._slots_of(work)

        def some(worker: int) -> None:
            for parts, offset in slots.jobs[worker :: self.workers]:
                preadv(fd, parts, offset)

        list(self.pool.map(some, range(self.workers)))
        return slots.results

    _deep = _blocks = _fill = _into_slots

    def _ranges(self, work: Work) -> Any:
        # O_DIRECT needs aligned memory, which bytes objects are not.
        return self._into_slots(work) if self.setting.direct else self._batch(work)

    def _whole(self, work: Work) -> Any:
        preadv, fd, step = os.preadv, self.fd, 8 << 20
        table = self.setting.scratch.bytes(work.nbytes)
        view = table.data
        list(self.pool.map(lambda at: preadv(fd, [view[at : at + step]], at), range(0, work.nbytes, step)))
        return table

    def _files(self, work: Work) -> list[bytes]:
        paths = [os.path.join(work.path, name) for name in work.names]
        length = work.length

        def some(worker: int) -> list[bytes]:
            return [_read_file(path, length) for path in paths[worker :: self.workers]]

        result = [b""] * work.reads
        for worker, part in enumerate(self.pool.map(some, range(self.workers))):
            result[worker :: self.workers] = part
        return result

    def _close(self) -> None:
        self.pool.shutdown()
        super()._close()


class OpenReadClose(Contender):
    """One file after the other."""

    name = "open+pread+close"
    calls = {"files": "loop"}

    def _files(self, work: Work) -> list[bytes]:
        length, folder = work.length, str(work.path)
        return [_read_file(f"{folder}/{name}", length) for name in work.names]


def _read_file(path: str, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, length, 0)
    finally:
        os.close(fd)


class Mmap(FileContender):
    """Slicing a mapping copies; a page that is not mapped yet causes a fault."""

    name = "mmap"
    calls = {"each": "slice", "batch": "slices", "whole": "copy to warm memory", "ranges": "slices"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.map = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)

    def _each(self, work: Work) -> bytes:
        view, length = self.map, work.length
        result = b""
        for offset in work.offsets:
            result = view[offset : offset + length]
        return result

    def _batch(self, work: Work) -> list[bytes]:
        view = self.map
        return [view[start:stop] for start, stop in work.pairs]

    _ranges = _batch

    def _whole(self, work: Work) -> Any:
        table = self.setting.scratch.bytes(work.nbytes)
        np.copyto(table, np.frombuffer(self.map, np.uint8, work.nbytes))
        return table

    def _release_pages(self) -> None:
        self.map.madvise(mmap.MADV_DONTNEED)

    def _close(self) -> None:
        self.map.close()
        super()._close()


class Memmap(Contender):
    """The same mapping as an array."""

    name = "np.memmap"
    calls = {
        "each": "copy of a slice",
        "batch": "fancy index",
        "whole": "np.array",
        "ranges": "copies of slices",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.array = np.memmap(setting.path, np.uint8, "r")

    def _each(self, work: Work) -> Any:
        array, length = self.array, work.length
        result: Any = None
        for offset in work.offsets:
            result = array[offset : offset + length].copy()
        return result

    def _batch(self, work: Work) -> Any:
        records = self.array[: self.array.size // work.length * work.length].reshape(-1, work.length)
        return np.asarray(records[work.array // work.length])

    def _ranges(self, work: Work) -> list[Any]:
        array = self.array
        return [array[start:stop].copy() for start, stop in work.pairs]

    def _whole(self, work: Work) -> Any:
        return np.array(self.array[: work.nbytes])

    def _release_pages(self) -> None:
        self.array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def _close(self) -> None:
        del self.array
