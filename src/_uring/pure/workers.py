"""The per-process state of the pure-Python backend: counters and worker threads.

The caller takes part in its own reads, so none is lost if no thread can run, as at interpreter exit. This does not use
concurrent.futures: a signal handler that reads would deadlock on its locks. `lock` is reentrant, and held for counting
only, never during I/O. A forked child makes its own Process, so it never waits for a lock or thread of its parent.
"""

import _thread
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from _uring.pure.buffer import Memory

# Maximum wait before checking whether this is a child that a signal handler forked meanwhile.
_WAIT_S = 0.1

_T = TypeVar("_T")
_Task = Callable[[], object]


@dataclass(slots=True)
class Process:
    """The state of a reactor in one process. `lock` guards all counters."""

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
    hints: "Process | None" = None

    def count(self, asked: int, fetched: int) -> None:
        with self.lock:
            self.reads += 1
            self.bytes_asked += asked
            self.bytes_fetched += fetched

    def help(self, task: _Task, times: int, threads: int = 0) -> None:
        """Queue `task` for the worker threads, `times` times; start at least `threads` of them. It must not raise."""
        with self.lock:
            missing = min(max(times, threads), self.workers) - self.threads
            self.threads += max(0, missing)
        for started in range(missing):
            try:
                # Not Thread.start, which waits for the thread: for ever in a child that a signal handler forks then.
                _thread.start_new_thread(_work, (self.tasks,))
            except RuntimeError:  # the interpreter is shutting down, or no more threads can be started
                with self.lock:
                    self.threads -= missing - started
                break
        for _ in range(times):
            self.tasks.put(task)

    def delegate(self, task: _Task) -> None:
        """Run `task` on a worker thread, or on this one if no thread can be started. It must not raise."""
        self.help(task, 1, threads=self.workers)
        while not self.threads:
            try:
                waiting = self.tasks.get_nowait()
            except Empty:
                return
            if waiting is not None:
                waiting()

    def hint(self, task: _Task) -> None:
        """Run `task` on one thread for hints: reads do not wait behind them. It must not raise."""
        with self.lock:
            if self.hints is None:
                self.hints = Process(workers=1)
        self.hints.delegate(task)

    def is_own(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether it belongs to the running process, not to a parent. (The default argument: see `_Shared.wait`.)"""
        return self.pid == getpid()

    def dismiss(self) -> None:
        """End the threads, each after its current task."""
        if not self.is_own():
            return
        with self.lock:
            ending, self.threads = self.threads, 0
        for _ in range(ending):
            self.tasks.put(None)

    def __del__(self) -> None:
        self.dismiss()

    def spread(self, count: int, concurrent: int, job: Callable[[int], _T]) -> list[_T]:
        """Run job(0) ... job(count - 1), at most `concurrent` at once. Raises the first failure by index."""
        width = min(concurrent or self.workers, self.workers, count)
        if width <= 1:
            return [job(index) for index in range(count)]
        shared = _Shared(count, job, count)
        try:
            self.help(shared.help_all, width - 1)
            while self.is_own() and shared.run_here() >= 0:
                pass
        finally:
            if self.is_own():
                shared.stop()
                shared.wait()
        if not self.is_own():  # a signal handler forked: jobs of the workers complete in the parent only
            return [job(index) for index in range(count)]
        with self.lock:
            self.pool_reads += count
        return shared.results()

    def as_completed(
        self, count: int, concurrent: int, job: Callable[[int], _T], *, ordered: bool = False
    ) -> Iterator[tuple[int, _T]]:
        """Yield (index, job(index)) as each completes, or in order. Closing it waits for jobs in progress, and starts
        no more. A child forked meanwhile does the rest itself: jobs in progress complete in the parent only.
        """
        width = min(concurrent or self.workers, self.workers, count)
        shared = _Shared(count, job, width)
        given: set[int] = set()
        try:
            self.help(shared.help_one, width - 1)
            while len(given) < count and self.is_own():
                index = shared.do(len(given)) if ordered else shared.any_done()
                if index < 0:
                    break
                given.add(index)
                shared.allow(1)
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
        del task  # do not keep its references while waiting for the next


class _Shared(Generic[_T]):
    """Jobs that several threads take from one list, and their results.

    There is no lock, only calls that are atomic under the GIL, because a signal handler may interrupt the calling
    thread at any point. If the handler raises, the caller must not wait for a job that it took itself and lost, nor for
    a completion that it has already seen. So only workers count themselves in and out. If the handler forks, the child
    does not wait.
    """

    def __init__(self, count: int, job: Callable[[int], _T], most: int) -> None:
        """most: how many jobs may be taken at first; see `allow`."""
        self._count = count
        self._job = job
        self._pid = os.getpid()
        self._indices = iter(range(count))
        self._open: deque[int] = deque()
        self._entered: list[None] = []
        self._left: list[None] = []
        self._done: SimpleQueue[int] = SimpleQueue()
        self._results: dict[int, _T] = {}
        self._failures: dict[int, BaseException] = {}
        self.allow(most)

    def allow(self, more: int) -> None:
        """Allow `more` jobs to be taken. This keeps the workers from running too far ahead of the caller."""
        self._open.extend(islice(self._indices, more))

    def help_one(self) -> bool:
        """On a worker thread: take a job and run it. False if there was none."""
        self._entered.append(None)
        index = self.run_here()
        self._left.append(None)
        if index >= 0:
            self._done.put(index)
        return index >= 0

    def help_all(self) -> None:
        """On a worker thread: take jobs until there are no more."""
        while self.help_one():
            pass

    def run_here(self) -> int:
        """Take a job and run it. Return its index, or -1 if there was none."""
        try:
            index = self._open.popleft()
        except IndexError:
            return -1
        return self._run(index)

    def _run(self, index: int) -> int:
        try:
            self._results[index] = self._job(index)
        except BaseException as error:
            self._failures[index] = error
            self.stop()
        return index

    def stop(self) -> None:
        """Allow no more jobs to be taken."""
        self._indices = iter(range(0))
        self._open.clear()

    def wait(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Wait until all jobs of workers are done, so that none uses the file any more. During interpreter shutdown
        there is no need to wait: threads are frozen. (A default argument, because globals may be cleared by then.)
        """
        while len(self._left) < len(self._entered) and not is_ending() and self._is_here():
            self._hear()

    def _is_here(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this is the process of the workers."""
        return self._pid == getpid()

    def _hear(self) -> int:
        """The index of a job that a worker has completed; -1 if none completes within _WAIT_S."""
        try:
            return self._done.get(timeout=_WAIT_S)
        except Empty:
            return -1

    def any_done(self) -> int:
        """The index of a completed job. Runs one here rather than wait. -1 in a forked child."""
        try:
            index = self._done.get_nowait()
        except Empty:
            index = self.run_here()
        while index < 0 and self._is_here():
            index = self._hear()
        return index

    def do(self, index: int) -> int:
        """Complete one job: run it here if no worker has taken it, else wait for it. Its index, or -1 in a forked
        child.

        Does not run a later job meanwhile: that could take for ever, and hide that this one is complete.
        """
        try:
            self._open.remove(index)
        except ValueError:  # a worker has taken it
            pass
        else:
            self._run(index)
        while index not in self._results and index not in self._failures:
            if not self._is_here():
                return -1
            self._hear()
        return index

    def pop(self, index: int) -> _T:
        """Return the result of a job, or raise its failure."""
        if index not in self._failures:
            return self._results.pop(index)
        error = self._failures[index]
        try:
            raise error
        finally:  # its traceback references this frame: break the cycle
            self._failures.clear()
            del error

    def results(self) -> list[_T]:
        """Return all results in order, or raise the first failure by index. All jobs must be complete."""
        if self._failures:
            self.pop(min(self._failures))
        return [self._results.pop(index) for index in range(self._count)]
