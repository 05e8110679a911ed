"""What the pure-Python backend has in one process: its counters and its worker threads.

The lock is held for counting only, never across I/O. A forked child makes a Process of its own, so that it never waits
for a lock or a thread that exists in the parent only.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from _uring.array_buffer import Memory

_T = TypeVar("_T")


@dataclass(slots=True)
class Process:
    """What a reactor has in one process. `lock` guards every counter."""

    workers: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    memory: Memory = field(default_factory=Memory)
    executor: ThreadPoolExecutor | None = None
    reads: int = 0
    bytes_asked: int = 0
    bytes_fetched: int = 0
    pool_reads: int = 0
    files_open: int = 0
    in_flight: int = 0

    def count(self, asked: int, fetched: int) -> None:
        with self.lock:
            self.reads += 1
            self.bytes_asked += asked
            self.bytes_fetched += fetched

    def submit(self, job: Callable[[], None]) -> "Future[None]":
        with self.lock:
            if self.executor is None:
                self.executor = ThreadPoolExecutor(self.workers, thread_name_prefix="rangeio")
            self.pool_reads += 1
            return self.executor.submit(job)

    def spread(self, count: int, concurrent: int, job: Callable[[int], _T]) -> list[_T]:
        """job(0) ... job(count - 1), at most `concurrent` at once; of several failures the first in order is raised."""
        width = min(concurrent or self.workers, self.workers, count)
        if width <= 1:
            return [job(index) for index in range(count)]
        results: dict[int, _T] = {}
        failures: dict[int, BaseException] = {}
        indices = iter(range(count))
        stopped = threading.Event()

        def drain() -> None:
            while not stopped.is_set():
                with self.lock:
                    index = next(indices, -1)
                if index < 0:
                    return
                try:
                    results[index] = job(index)
                except BaseException as error:
                    failures[index] = error
                    stopped.set()

        futures = [self.submit(drain) for _ in range(width)]
        try:
            wait(futures)
        finally:  # after Ctrl-C the file must stay open until the last worker has let go of it
            stopped.set()
            wait(futures)
        if failures:
            error = failures[min(failures)]
            try:
                raise error
            finally:  # its traceback holds this frame: let neither hold the other
                failures.clear()
                del error
        return [results[index] for index in range(count)]

    def as_completed(self, count: int, concurrent: int, job: Callable[[int], _T]) -> Iterator[tuple[int, _T]]:
        """(index, job(index)) as each is done. Closing the generator waits for those under way and starts no more."""
        width = min(concurrent or self.workers, self.workers)
        done: SimpleQueue[tuple[int, _T | None, BaseException | None]] = SimpleQueue()
        started = finished = 0

        def run(index: int) -> None:
            try:
                done.put((index, job(index), None))
            except BaseException as error:
                done.put((index, None, error))

        try:
            while finished < count:
                while started < min(count, finished + width):
                    self.submit(partial(run, started))
                    started += 1
                index, value, error = done.get()
                finished += 1
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error
                yield index, value  # type: ignore[misc]
        finally:
            for _ in range(started - finished):
                done.get()
