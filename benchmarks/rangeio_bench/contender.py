"""The base class of contenders: one class per way to read, one method per action.

A case measures one *action*. A contender has a method `_<action>` for each action that it supports, and `calls` names
the call of its library. The method is the timed section: it reads everything and returns what a user would
hold at the end, so that it can be checked afterwards.
"""

import gc
import os
import sys
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
    "fill",
    "files",
    "tasks",
    "threads",
    "stream",
    "through",
    "seeks",
]
"""
each    small reads, one after the other, the result of each dropped at once
batch   many small reads in one call, all results held
deep    as batch, with a given number in flight
whole   the whole file into one buffer
blocks  the same, cut into blocks of a given size
ranges  many ranges of different sizes
fill    the same, each range into memory of its own
files   many small files, whole
tasks   like each, by many tasks of an event loop
threads like each, by many threads
stream  the file in order, in pieces of the contender's choice
through the same through a file object, in small reads
seeks   small reads at random positions through a file object
"""

FLEETING: frozenset[Action] = frozenset(["each", "tasks", "threads", "stream", "through", "seeks"])
"""Actions whose results are dropped at once, so that only single reads can be checked."""

Role = Literal["ours", "baseline", "peer", "bound"]

_HUGE_PAGE = 2 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run."""

    elapsed_ns: int
    cpu_ns: int | None
    """User and system CPU time of all threads of the process; None if other work used the CPU too."""
    reads: int
    nbytes: int
    device_bytes: int | None = None
    """Bytes read from the block device by this process; None without /proc/self/io.
    For a server that counts, the bytes it sent."""
    requests: int | None = None
    """Requests counted by the server; None if it does not count."""
    least_ns: int | None = None
    """The minimum time for any client at the rate of a paced server; None without one."""

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
    """A touched, page-aligned destination shared by all baselines: warm memory is their best case."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def bytes(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Its first `nbytes`, touched."""
        if self._memory.nbytes < nbytes:
            # numpy asks for huge pages above 4 MiB; aligned to one, O_DIRECT gets the fewest segments.
            room = np.empty(nbytes + _HUGE_PAGE, np.uint8)
            start = -room.ctypes.data % _HUGE_PAGE
            self._memory = room[start : start + nbytes]
            self._memory.fill(1)
        return self._memory[:nbytes]

    def spoil(self) -> None:
        """Clear the result of an earlier contender, so that it is not taken for that of the next one."""
        self._memory.fill(0xA5)


class Counting(Protocol):
    """A server that counts requests and bytes and limits its rate."""

    def measured(self, sample: Sample, depth: int, before: object) -> Sample:
        """The sample with the counters since `before`, a result of `counted`."""

    def counted(self) -> object:
        """Its counters."""


@dataclass(frozen=True)
class Setting:
    """The parameters of a contender."""

    path: Path
    folder: Path
    scratch: Scratch
    direct: bool = False
    depth: int = 0
    """Reads in flight; 0 leaves it to the contender."""
    url: str = ""
    """The URL of the bytes of `path` on a server."""
    ca_file: str = ""
    """The certificates to trust there."""
    store: Literal["s3", "gs", "az"] = "s3"
    """The service whose client reads it; for Azure the path is ``/account/container/blob``."""
    server: "Counting | None" = None
    """The server, if it counts."""


class Contender:
    """Base class. A subclass opens what it needs in `__init__`, outside of timed sections."""

    name: ClassVar[str]
    role: ClassVar[Role] = "baseline"
    module: ClassVar[str] = ""
    """Import name of the library, empty for the standard library."""
    distribution: ClassVar[str] = ""
    """Name of its distribution, if another."""
    needs_python: ClassVar[tuple[int, int]] = (3, 10)
    calls: ClassVar[Mapping[Action, str]]
    reads_direct: ClassVar[bool] = False
    has_latency: ClassVar[bool] = True
    """Whether an `each` with a single read costs as much as one read of a long `each`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @classmethod
    def absence(cls) -> str:
        """The reason why it cannot run here; empty if it can."""
        name = cls.distribution or cls.module
        if sys.version_info < cls.needs_python:
            return f"{name} needs Python {cls.needs_python[0]}.{cls.needs_python[1]}"
        return f"{name} is not installed" if cls.module and find_spec(cls.module) is None else ""

    @classmethod
    def version(cls) -> str:
        """The version of the library; empty for the standard library."""
        try:
            return version(cls.distribution or cls.module) if cls.module else ""
        except PackageNotFoundError:
            return ""

    def _method(self, action: Action) -> Callable[[Work], Any]:
        method: Callable[[Work], Any] = getattr(self, f"_{action}")
        return method

    def run(self, action: Action, work: Work) -> Any:
        """Run the action once. Returns what a user would hold."""
        return self._method(action)(work)

    def measure(self, action: Action, works: list[Work]) -> tuple[Sample, Any]:
        """Time a run over all of `works`. Also returns the last result, not yet freed, for checking."""
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
        """Unmap mappings that would keep the file's pages in the cache."""
        self._release_pages()

    def _release_pages(self) -> None:
        pass

    def served_by(self) -> str:
        """The backend that did the reads, if the contender knows it."""
        return ""

    def close(self) -> None:
        """Release everything."""
        self._close()

    def _close(self) -> None:
        pass


class FileContender(Contender):
    """A contender that reads through its own descriptor."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        flags = os.O_RDONLY | (getattr(os, "O_DIRECT", 0) if setting.direct else 0)
        self.fd = os.open(setting.path, flags)

    def _close(self) -> None:
        os.close(self.fd)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the garbage collector, like timeit: a collection would be charged to the contender that runs."""
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
