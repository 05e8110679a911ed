"""What the pure-Python backend has in one process: its counters and its worker threads.

The threads only help: whoever asks for many reads takes part in them, so that none is lost where no thread can run, as
at the end of the interpreter. Nothing here is from concurrent.futures, whose locks a signal handler that reads would
wait for in vain; `lock` may be taken again by its holder, and is held for counting only, never across I/O. A forked
child makes a Process of its own: it never waits for a lock or a thread that only its parent has.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from _uring.array_buffer import Memory

_T = TypeVar("_T")
_Task = Callable[[], object]


@dataclass(slots=True)
class Process:
    """The part of a reactor that is of one process. `lock` guards every counter."""

    workers: int
    pid: int = field(default_factory=os.getpid)
    lock: "threading.RLock" = field(default_factory=threading.RLock)
    memory: Memory = field(default_factory=Memory)
    tasks: SimpleQueue[_Task | None] = field(default_factory=SimpleQueue)
    threads: int = 0
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

    def help(self, task: _Task, times: int, threads: int = 0) -> None:
        """Have worker threads run `task` so many times, some time; at least `threads` of them. It must not raise."""
        with self.lock:
            missing = min(max(times, threads), self.workers) - self.threads
            self.threads += max(0, missing)
        for _ in range(missing):
            try:
                threading.Thread(target=_work, args=(self.tasks,), name="rangeio", daemon=True).start()
            except RuntimeError:  # the interpreter is ending, or the machine has no thread left
                break
        for _ in range(times):
            self.tasks.put(task)

    def is_own(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether it is of the process that runs, not of one that it was forked from. (As in `_Shared.wait`.)"""
        return self.pid == getpid()

    def dismiss(self) -> None:
        """End the threads, each after the task it is at."""
        if not self.is_own():
            return
        with self.lock:
            ending, self.threads = self.threads, 0
        for _ in range(ending):
            self.tasks.put(None)

    def __del__(self) -> None:
        self.dismiss()

    def spread(self, count: int, concurrent: int, job: Callable[[int], _T]) -> list[_T]:
        """job(0) ... job(count - 1), at most `concurrent` at once; of several failures the first in order is raised."""
        width = min(concurrent or self.workers, self.workers, count)
        if width <= 1:
            return [job(index) for index in range(count)]
        shared = _Shared(count, job)
        try:
            self.help(shared.help_all, width - 1)
            while shared.run_here() >= 0:
                pass
        finally:
            shared.stop()
            shared.wait()
        with self.lock:
            self.pool_reads += count
        return shared.results()

    def as_completed(
        self, count: int, concurrent: int, job: Callable[[int], _T], *, ordered: bool = False
    ) -> Iterator[tuple[int, _T]]:
        """(index, job(index)) as each is done, or in order. Closing it waits for those under way and starts no more.

        A child forked half-way does the rest itself: what was under way is done for its parent only.
        """
        width = min(concurrent or self.workers, self.workers, count)
        shared = _Shared(count, job)
        shared.most = width
        given: set[int] = set()
        try:
            self.help(shared.help_one, width - 1)
            while len(given) < count and self.is_own():
                index = shared.do(len(given)) if ordered else shared.any_done()
                given.add(index)
                shared.most = len(given) + width
                yield index, shared.pop(index)
                if width > 1 and self.is_own():
                    self.help(shared.help_one, 1)
        finally:
            if self.is_own():
                shared.stop()
                shared.wait()
        for index in range(count):
            if index not in given:
                yield index, job(index)


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # and what it holds, while waiting for the next


class _Shared(Generic[_T]):
    """Jobs that several threads take from one list, and what has come of them.

    Only the jobs of helpers are counted: the thread that asked may be interrupted by a signal handler that raises, at
    any point, and must not wait for a job that it took itself and lost.
    """

    def __init__(self, count: int, job: Callable[[int], _T]) -> None:
        self.most = (
            count  # jobs that helpers may have taken by now, so that they do not run away from the caller
        )
        self._job = job
        self._indices = iter(range(count))
        self._lock = threading.Lock()
        self._taken = 0
        self._helped = 0
        self._seen = 0
        self._done: SimpleQueue[int] = SimpleQueue()
        self._results: dict[int, _T] = {}
        self._failures: dict[int, BaseException] = {}

    def help_one(self) -> bool:
        """On a worker thread: take a job and do it; whether there was one."""
        with self._lock:
            index = next(self._indices, -1) if self._taken < self.most else -1
            self._taken += index >= 0
            self._helped += index >= 0
        if index >= 0:
            self._do(index)
            self._done.put(index)
        return index >= 0

    def help_all(self) -> None:
        """On a worker thread: take jobs until there are no more."""
        while self.help_one():
            pass

    def run_here(self) -> int:
        """On the thread that asked: take a job and do it; its index, -1 if there was none."""
        with self._lock:
            index = next(self._indices, -1)
            self._taken += index >= 0
        if index >= 0:
            self._do(index)
        return index

    def _do(self, index: int) -> None:
        try:
            self._results[index] = self._job(index)
        except BaseException as error:
            self._failures[index] = error
            self.stop()

    def stop(self) -> None:
        """Let nobody take another job."""
        with self._lock:
            self._indices = iter(range(0))

    def wait(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Until every job of a helper is done: after this nobody uses its file. Nor does a helper when the interpreter
        is ending: its thread stands still then, wherever it is. (The default is here because globals may be gone.)
        """
        while self._seen < self._helped and not is_ending():
            self._done.get()
            self._seen += 1

    def any_done(self) -> int:
        """The index of a job that is done, doing one here rather than waiting."""
        try:
            index = self._done.get_nowait()
        except Empty:
            index = self.run_here()
            if index >= 0:
                return index
            index = self._done.get()
        self._seen += 1
        return index

    def do(self, index: int) -> int:
        """See to it that one job is done, doing it here if nobody has taken it; its index."""
        while index not in self._results and index not in self._failures:
            if self._taken <= index:
                self.run_here()
            else:
                self._done.get()
                self._seen += 1
        return index

    def pop(self, index: int) -> _T:
        """The result of a job, or its failure raised."""
        if index not in self._failures:
            return self._results.pop(index)
        error = self._failures[index]
        try:
            raise error
        finally:  # its traceback holds this frame: let neither hold the other
            self._failures.clear()
            del error

    def results(self) -> list[_T]:
        """All results in order, or the first failure in that order raised."""
        if self._failures:
            self.pop(min(self._failures))
        return [self._results.pop(index) for index in range(len(self._results))]
