"""Threads for calls that block: started when there is no idle one, ended after some seconds without work.

They are daemons: a call that never returns does not keep the program from ending. At exit, calls of other libraries are
waited for at most a second, because a native library may not survive that its threads are stopped inside of it.
"""

import _thread
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

_IDLE_S = 10.0
_EXIT_S, _STEP_S = 1.0, 0.005

Work = Callable[[], object]


def start_thread(work: Work) -> None:
    """Run `work`, which must not raise, in a thread that does not keep the program from ending. RuntimeError if none
    can be started.

    It does not wait until the thread runs, as Thread.start does: for ever in a child that a signal handler forks in
    that moment, which does not have the thread. Whoever waits for what the thread does looks now and then whether the
    process is still the same. `threading` does not know the thread.
    """
    _thread.start_new_thread(work, ())


class _Worker:
    """A thread, and the queue it waits at."""

    __slots__ = ("_owner", "_tasks")

    def __init__(self, owner: "Threads", first: Work) -> None:
        self._owner = owner
        self._tasks: SimpleQueue[Work] = SimpleQueue()
        self._tasks.put(first)

    def give(self, work: Work) -> None:
        self._tasks.put(work)

    def run(self) -> None:
        while True:
            try:
                work = self._tasks.get(timeout=_IDLE_S)
            except Empty:
                if self._owner.retire(self):
                    return
                work = self._tasks.get()  # it was given work in that moment
            work()
            del work  # do not keep its references while waiting for the next
            self._owner.rest(self)


class Threads:
    """The threads of this process. Everything that is shared is changed by one call that is atomic under the GIL,
    because a signal handler may interrupt at any point and use it.
    """

    def __init__(self) -> None:
        self.begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Forget all threads; in a forked child there are none."""
        self._idle: deque[_Worker] = deque()
        self._working: set[_Worker] = set()

    def start(self, work: Work) -> None:
        """Run `work` in a thread, or in this one if none can be started. It must not raise."""
        try:
            self.start_apart(work)
        except RuntimeError:
            work()

    def start_apart(self, work: Work) -> None:
        """Run `work` in a thread. It must not raise. RuntimeError if none can be started."""
        try:
            worker = self._idle.pop()  # the one that rested last
        except IndexError:
            worker = _Worker(self, work)
            self._working.add(worker)
            try:
                start_thread(worker.run)
            except RuntimeError:  # at exit, or there are too many
                self._working.discard(worker)
                raise
        else:
            self._working.add(worker)
            worker.give(work)

    def rest(self, worker: _Worker) -> None:
        """The thread has no work."""
        self._working.discard(worker)
        self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        """Whether the thread may end; not if it has just been taken."""
        try:
            self._idle.remove(worker)
        except ValueError:
            return False
        return True

    def wait(self, at_most_s: float) -> bool:
        """Wait until no work is in progress. Returns whether that is so."""
        end = time.monotonic() + at_most_s
        while self._working and time.monotonic() < end:
            threading.Event().wait(_STEP_S)
        return not self._working


THREADS = Threads()
"""For calls of other libraries."""
CONNECTING = Threads()
"""For connections that are opened: few, or over WebHDFS one for each range."""

atexit.register(THREADS.wait, _EXIT_S)
