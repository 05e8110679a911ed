"""Who takes part: one class for each way to read, one method for each thing to do.

An *action* is what a case asks for. A contender has a method `_<action>` for each one it can do, and says in `calls`
which call of its library does it. The method is the timed section: it reads everything and returns what a user would
hold in the end, so that it can be checked afterwards.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rangeio.cli.machine import read_text
from rangeio_bench.work import Work

Action = Literal[
    "each",
    "batch",
    "deep",
    "whole",
    "blocks",
    "ranges",
    "files",
    "tasks",
    "threads",
    "stream",
    "through",
    "seeks",
]
"""
each    small reads, one after the other, the result of each dropped at once
batch   many small reads given at once, all results held
deep    as batch, with so many in flight at any time
whole   the whole file into one buffer
blocks  the same, cut into blocks of a given size
ranges  many ranges of different sizes
files   many small files, whole
tasks   as each, by many tasks of an event loop
threads as each, by many threads
stream  the file in order, in pieces of the contender's choice
through the same through a file object, in small reads
seeks   small reads here and there through a file object
"""

FLEETING: frozenset[Action] = frozenset(["each", "tasks", "threads", "stream", "through", "seeks"])
"""Where results are dropped at once, so that only single reads can be checked."""

Role = Literal["ours", "baseline", "peer", "bound"]

_HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run."""

    elapsed_ns: int
    cpu_ns: int | None
    """CPU time of all threads of the process, user and system; None where something else used the CPU too."""
    reads: int
    nbytes: int
    device_bytes: int | None = None
    """What the block device was asked for on behalf of this process; None if /proc/self/io is not there.
    Of reads from a server that counts, what it sent."""
    requests: int | None = None
    """What the server counted; None if it does not."""
    least_ns: int | None = None
    """No client can be faster than this, as the server is paced; None if it is not."""

    @property
    def ns_per_read(self) -> float:
        """Wall clock time of one read."""
        return self.elapsed_ns / self.reads

    @property
    def cpu_ns_per_read(self) -> float | None:
        """CPU time of one read."""
        return None if self.cpu_ns is None else self.cpu_ns / self.reads

    @property
    def bytes_per_s(self) -> float:
        """Speed."""
        return self.nbytes / self.elapsed_ns * 1e9


class Scratch:
    """One touched, page-aligned destination that all baselines share: warm memory, the best case for them."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def bytes(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """The first `nbytes` of it, touched."""
        if self._memory.nbytes < nbytes:
            # numpy asks for huge pages above 4 MiB; aligned to one, O_DIRECT gets the fewest segments.
            room = np.empty(nbytes + _HUGE_PAGE, np.uint8)
            start = -room.ctypes.data % _HUGE_PAGE
            self._memory = room[start : start + nbytes]
            self._memory.fill(1)
        return self._memory[:nbytes]

    def spoil(self) -> None:
        """Forget what an earlier contender left, lest it be taken for the work of the next one."""
        self._memory.fill(0xA5)


class Counting(Protocol):
    """A server that counts what it does, and does it at a pace."""

    def measured(self, sample: Sample, depth: int, before: object) -> Sample:
        """The sample with what was counted since `before`, which `counted` gave."""

    def counted(self) -> object:
        """What it has counted."""


@dataclass(frozen=True)
class Setting:
    """What a contender is told before it reads."""

    path: Path
    folder: Path
    scratch: Scratch
    direct: bool = False
    depth: int = 0
    """Reads in flight; 0 leaves it to the contender."""
    url: str = ""
    """Where the bytes of `path` are to be had from a server."""
    ca_file: str = ""
    """The certificates to trust there."""
    server: "Counting | None" = None
    """The server, where it counts."""


class Contender:
    """Base of all. A subclass opens what it needs in `__init__`, outside of any timing."""

    name: ClassVar[str]
    role: ClassVar[Role] = "baseline"
    module: ClassVar[str] = ""
    """Distribution and import name of the library, empty for the standard library."""
    calls: ClassVar[Mapping[Action, str]]
    reads_direct: ClassVar[bool] = False
    has_latency: ClassVar[bool] = True
    """Whether one `each` of a single read is as dear as a read of a long `each`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @classmethod
    def absence(cls) -> str:
        """Why it cannot take part here, empty if it can."""
        return f"{cls.module} is not installed" if cls.module and find_spec(cls.module) is None else ""

    @classmethod
    def version(cls) -> str:
        """Of the library; empty for the standard library's."""
        try:
            return version(cls.module) if cls.module else ""
        except PackageNotFoundError:
            return ""

    def _method(self, action: Action) -> Callable[[Work], Any]:
        method: Callable[[Work], Any] = getattr(self, f"_{action}")
        return method

    def run(self, action: Action, work: Work) -> Any:
        """Do it once; what a user would hold then."""
        return self._method(action)(work)

    def measure(self, action: Action, works: list[Work]) -> tuple[Sample, Any]:
        """Time a run over all of `works`; the result of the last one, not yet freed, comes back to be checked."""
        method = self._method(action)
        server, result = self.setting.server, None
        counted = server.counted() if server else None
        with _no_collection():
            device, cpu, start = _device_bytes(), time.process_time_ns(), time.perf_counter_ns()
            for work in works:
                result = method(work)
            elapsed, cpu = time.perf_counter_ns() - start, time.process_time_ns() - cpu
        after = _device_bytes()
        read = None if device is None or after is None else after - device
        sample = Sample(elapsed, cpu, sum(w.reads for w in works), sum(w.nbytes for w in works), read)
        return server.measured(sample, self.setting.depth, counted) if server else sample, result

    def release_pages(self) -> None:
        """Unmap what would keep the file's pages in the cache."""
        self._release_pages()

    def _release_pages(self) -> None:
        pass

    def served_by(self) -> str:
        """What did the reading, where the contender knows it."""
        return ""

    def close(self) -> None:
        """Give everything back."""
        self._close()

    def _close(self) -> None:
        pass


class FileContender(Contender):
    """One that reads through a descriptor of its own."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        flags = os.O_RDONLY | (getattr(os, "O_DIRECT", 0) if setting.direct else 0)
        self.fd = os.open(setting.path, flags)

    def _close(self) -> None:
        os.close(self.fd)


@contextmanager
def _no_collection() -> Iterator[None]:
    """As timeit does: a collection in the middle would be charged to whoever happens to run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _device_bytes() -> int | None:
    for line in read_text("/proc/self/io").splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return None
