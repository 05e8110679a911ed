"""The conditions of a case: the page cache, the CPUs, and other threads."""

import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rangeio.cli.machine import resident_share, usable_cpus
from rangeio_bench.work import Work

_STEP = 8 << 20
_LOOKED_AT = 64
"""Number of small files whose residency is checked as a sample."""


def warm(work: Work) -> None:
    """Read everything through the page cache once."""
    for path in _paths(work):
        load_pages(path)


def load_pages(path: Path) -> None:
    """Read a file through the page cache once."""
    with open(path, "rb", buffering=0) as file:
        while file.read(_STEP):
            pass


def evict(work: Work) -> float | None:
    """Drop the clean and unmapped pages of the files from the page cache. Returns the result of `resident`.

    Unlike /proc/sys/vm/drop_caches this needs no root and does not affect other files. Pages that the read-ahead of an
    earlier reader is still loading are locked and stay: waits for them, at most a tenth of a second.
    """
    for wait_s in (0.0, 0.01, 0.03, 0.06):
        time.sleep(wait_s)
        for path in _paths(work):
            drop_pages(path)
        share = resident(work)
        if not share:
            break
    return share


def drop_pages(path: Path) -> None:
    """Drop the clean and unmapped pages of a file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def resident(work: Work) -> float | None:
    """The share of the files in the page cache; for many files, of a sample."""
    shares = []
    for path in _paths(work)[:_LOOKED_AT]:
        fd = os.open(path, os.O_RDONLY)
        try:
            shares.append(resident_share(fd))
        finally:
            os.close(fd)
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _paths(work: Work) -> list[Path]:
    return [work.path / name for name in work.names] or [work.path]


def direct_refused(path: Path) -> str:
    """The reason why O_DIRECT cannot be used on `path`; empty if it can."""
    if not hasattr(os, "O_DIRECT"):
        return "this system has no O_DIRECT"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        return f"O_DIRECT is refused here: {error.strerror}"
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            os.preadv(fd, [page], 0)
    except OSError as error:
        return f"an O_DIRECT read is refused here: {error.strerror}"
    finally:
        os.close(fd)
    return ""


@contextmanager
def on_cpus(count: int) -> Iterator[None]:
    """Restrict every thread of the process to `count` CPUs; 0 changes nothing.

    sched_setaffinity(2) is per thread, and existing threads would keep running on other CPUs.
    """
    before = usable_cpus()
    if not count or count >= len(before):
        yield
        return
    _confine(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _confine(before)


def _confine(cpus: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cpus)
        except OSError:
            pass  # the thread has ended, or is a kernel worker that cannot be moved


@contextmanager
def busy_thread(wanted: bool) -> Iterator[None]:
    """A Python thread that computes and releases the GIL only when it must."""
    if not wanted:
        yield
        return
    stop, running = threading.Event(), threading.Event()

    def compute() -> None:
        running.set()
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number = (number * 1103515245 + 12345) & 0x7FFFFFFF

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    running.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()
