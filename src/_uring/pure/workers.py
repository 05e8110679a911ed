"""What the pure-Python backend has in one process: its counters and its worker threads.

The threads only help: whoever asks for many reads takes part in them, so that none is lost where no thread can run, as
at the end of the interpreter. Nothing here is from concurrent.futures, whose locks a signal handler that reads would
wait for in vain; `lock` may be taken again by its holder, and is held for counting only, never across I/O. A forked
child makes a Process of its own: it never waits for a lock or a thread that only its parent has.
"""

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

# How long a wait goes on before it is looked whether this is a child that a signal handler forked meanwhile.
_WAIT_S = 0.1

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
        for started in range(missing):
            try:
                threading.Thread(target=_work, args=(self.tasks,), name="rangeio", daemon=True).start()
            except RuntimeError:  # the interpreter is ending, or the machine has no thread left
                with self.lock:
                    self.threads -= missing - started
                break
        for _ in range(times):
            self.tasks.put(task)

    def delegate(self, task: _Task) -> None:
        """Have a worker thread run `task`; or this one, where no thread is to be had. It must not raise."""
        self.help(task, 1, threads=self.workers)
        while not self.threads:
            try:
                waiting = self.tasks.get_nowait()
            except Empty:
                return
            if waiting is not None:
                waiting()

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
        shared = _Shared(count, job, count)
        try:
            self.help(shared.help_all, width - 1)
            while self.is_own() and shared.run_here() >= 0:
                pass
        finally:
            if self.is_own():
                shared.stop()
                shared.wait()
        if not self.is_own():  # a signal handler forked: what helpers had is done for the parent only
            return [job(index) for index in range(count)]
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
        del task  # and what it holds, while waiting for the next


class _Shared(Generic[_T]):
    """Jobs that several threads take from one list, and what has come of them.

    There is no lock, only calls that are atomic under the GIL: the thread that asked may be interrupted by a signal
    handler at any point. One that raises must not have it wait for a job that it took itself and lost, nor for an end
    that it heard of, so helpers alone count themselves in and out; in a child that one forks, it waits for nobody.
    """

    def __init__(self, count: int, job: Callable[[int], _T], most: int) -> None:
        """most: how many may be taken for now; see `allow`."""
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
        """Let so many more be taken, so that the helpers do not run away from the caller."""
        self._open.extend(islice(self._indices, more))

    def help_one(self) -> bool:
        """On a worker thread: take a job and do it; whether there was one."""
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
        """Take a job and do it; its index, -1 if there was none."""
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
        """Let nobody take another job."""
        self._indices = iter(range(0))
        self._open.clear()

    def wait(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Until every job of a helper is done: after this nobody uses its file. Nor does a helper when the interpreter
        is ending: its thread stands still then, wherever it is. (The default is here because globals may be gone.)
        """
        while len(self._left) < len(self._entered) and not is_ending() and self._is_here():
            self._hear()

    def _is_here(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether this is the process that the helpers are of."""
        return self._pid == getpid()

    def _hear(self) -> int:
        """The index of a job that a helper has ended; -1 if none ends for a while."""
        try:
            return self._done.get(timeout=_WAIT_S)
        except Empty:
            return -1

    def any_done(self) -> int:
        """The index of a job that is done, doing one here rather than waiting; -1 in a forked child."""
        try:
            index = self._done.get_nowait()
        except Empty:
            index = self.run_here()
        while index < 0 and self._is_here():
            index = self._hear()
        return index

    def do(self, index: int) -> int:
        """See to it that one job is done, here if nobody has taken it; its index, -1 in a forked child.

        No later one is done here meanwhile: it may take for ever, and hide that this one is done.
        """
        try:
            self._open.remove(index)
        except ValueError:  # somebody has it, or had it
            pass
        else:
            self._run(index)
        while index not in self._results and index not in self._failures:
            if not self._is_here():
                return -1
            self._hear()
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
        """All results in order, or the first failure in that order raised. None may be missing."""
        if self._failures:
            self.pop(min(self._failures))
        return [self._results.pop(index) for index in range(self._count)]
