"""What waits on behalf of the engine: the caller's thread, asyncio (also uvloop) or trio, behind one interface."""

import heapq
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeAlias

from _uring.event_loops import bind
from rangeio.http.connection import cut_off_all
from rangeio.http.readiness import Readiness, ThreadReadiness, made
from rangeio.threads import CONNECTING

Work: TypeAlias = Callable[[], Any]
Done: TypeAlias = Callable[[Any], None]


class Driver(Protocol):
    """All callbacks run in the driver's own thread, also those from `post`."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` whenever `fd` is readable, until `unwatch`."""

    def unwatch(self, fd: int) -> None:
        """Stop watching. To be called before `fd` is closed or returned."""

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, after that time."""

    def post(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon. From any thread; RuntimeError if the loop is closed."""

    def listen(self) -> None:
        """Announce that another thread will call `post`."""

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """Run `work` where it may block, then call `done` with its result or exception.

        alone: nothing else is in flight. lost: called instead, in another thread, if the driver has ended by then.
        """


class GuardedDriver:
    """Wraps a driver so that each callback goes through `guard`, which passes no exception but those meant for the
    program: a loop does not know which read has failed.
    """

    def __init__(self, driver: Driver, guard: Callable[..., None]) -> None:
        self._driver, self._guard = driver, guard
        self.unwatch, self.listen = driver.unwatch, driver.listen

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """See `Driver`."""
        self._driver.watch(fd, partial(self._guard, callback))

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        self._driver.later(seconds, partial(self._guard, callback))

    def post(self, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        self._driver.post(partial(self._guard, callback))

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """See `Driver`."""
        self._driver.offload(work, partial(self._guard, done), lost, alone=alone)


def _in_thread(driver: Driver, work: Work, done: Done, lost: Done) -> None:
    """One thread for each connection that is being opened, so that none waits for another; it may open more of them."""

    def body() -> None:
        result = _outcome(work)
        try:
            driver.post(lambda: done(result))
        except RuntimeError:
            lost(result)

    try:
        CONNECTING.start_apart(body)
    except RuntimeError as error:  # no thread can be started
        reason = error
        driver.post(lambda: done(reason))


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return error


class ThreadDriver:
    """The caller's thread, which waits in `step`. For one call at a time. Other threads may only call `post`."""

    def __init__(self) -> None:
        self._readiness = Readiness()
        self.watch, self.unwatch = self._readiness.watch, self._readiness.unwatch
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._posted: deque[Callable[[], None]] = deque()
        self._wake: socket.socket | None = None
        self._heard: socket.socket | None = None
        self._closed = False
        self._elsewhere: dict[int, tuple[Work, Done, Done]] = {}  # what threads do
        _ALL.add(self)

    def begin_anew(self) -> None:
        """In a child that a signal handler forked during `step`: make new descriptors with the same numbers."""
        if self._closed:
            return
        if self._wake is not None and self._heard is not None:
            for theirs, ours in zip((self._heard, self._wake), socket.socketpair(), strict=True):
                os.dup2(ours.fileno(), theirs.fileno(), inheritable=False)
                ours.close()
        self._readiness.begin_anew()
        jobs, self._elsewhere = [*self._elsewhere.values()], {}
        for job in jobs:  # their threads are in the parent
            self.post(partial(self.offload, *job, alone=False))

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def post(self, callback: Callable[[], None]) -> None:
        """See `Driver`. Wakes the thread only while work was offloaded or an attempt waits for a connection."""
        if self._closed:
            raise RuntimeError("the call has ended")
        self._posted.append(callback)
        if self._closed:  # closed meanwhile; was the callback called all the same?
            try:
                self._posted.remove(callback)
            except ValueError:
                return
            raise RuntimeError("the call has ended")
        if self._wake is not None:
            try:
                self._wake.send(b"!")
            except OSError:
                pass  # full: it will wake; closed: nothing waits

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """See `Driver`. If `alone`, the work is done in this thread."""
        if alone:
            done(_outcome(work))
        else:
            self.listen()
            job = next(self._order)

            def ended(result: Any) -> None:
                self._elsewhere.pop(job, None)
                done(result)

            self._elsewhere[job] = work, done, lost
            _in_thread(self, work, ended, lost)

    def listen(self) -> None:
        """Let `post` wake this thread."""
        if self._wake is None:
            self._heard, self._wake = made(socket.socketpair)
            self._heard.setblocking(False)
            self._wake.setblocking(False)
            heard = self._heard
            self.watch(heard.fileno(), lambda: heard.recv(4096))

    def step(self) -> None:
        """Wait for the next event, and call its callbacks."""
        if self._posted:
            self._posted.popleft()()
            return
        wait_s = None
        if self._timers:
            wait_s = max(0.0, self._timers[0][0] - time.monotonic())
        self._readiness.call_back(wait_s)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        while self._posted:
            self._posted.popleft()()

    def is_clean(self) -> bool:
        """Whether it can serve another call: nothing is watched or posted. Drops the timers."""
        self._timers.clear()
        return self._wake is None and not self._readiness.watched

    def close(self) -> None:
        """Call what was posted, then close the descriptors."""
        self._closed = True
        while self._posted:
            self._posted.popleft()()
        self._readiness.close()
        self._timers.clear()
        self._elsewhere.clear()
        for end in (self._wake, self._heard):
            if end is not None:
                end.close()


class _LoopWatch:
    """What the engine watches on one loop, through one descriptor that the loop watches.

    Watching a connection on the loop for each read would cost as much as the read. And libuv stops watching a
    connection that is reset while data waits on it, without a call of add_reader's callback (uvloop 0.23.0); our
    descriptor has no errors. Only the watch of the loop holds this, so it ends with the loop; and after some time with
    nothing to watch.
    """

    def __init__(self, key: Any) -> None:
        self.key = key
        self._forks = _forks
        self.ended = False
        self._binding: Any = bind(key)
        self.readiness: Readiness | ThreadReadiness = Readiness()
        self._begin()
        self._look()

    def _begin(self) -> None:
        fd = self.readiness.fileno() if isinstance(self.readiness, Readiness) else None
        try:
            if fd is None:
                raise NotImplementedError  # select and poll have no descriptor that a loop could watch
            self._binding.watch(fd, self.ready, gone=self._gone)
        except NotImplementedError:  # asyncio's Proactor loop watches none
            self.readiness.close()
            self.readiness = ThreadReadiness(self._binding.call_soon_threadsafe)

    def _gone(self) -> None:
        """The loop has let go of it. Also called where it never took it, by then with a ThreadReadiness."""
        if isinstance(self.readiness, Readiness):
            self.end()

    @property
    def serves(self) -> bool:
        """Whether it belongs to this process and is watched."""
        return not self.ended and self._forks == _forks

    def ready(self) -> None:
        """Called by the loop when a descriptor is readable."""
        if self.serves and isinstance(self.readiness, Readiness):
            self.readiness.call_back(0)

    def _look(self) -> None:
        self._used = False
        self._binding.later(_KEPT_S, self._end_if_unused)

    def used(self) -> None:
        """Keep it for a while longer."""
        self._used = True

    def _end_if_unused(self) -> None:
        if not self.serves:
            return
        if self._used or self.readiness.watched:
            self._look()
        else:
            if isinstance(self.readiness, Readiness):
                self._binding.unwatch(self.readiness.fileno())
            self.end()

    def end(self) -> None:
        """The loop has stopped watching. A second call does nothing."""
        if not self.ended:
            self.ended = True
            self.readiness.close()


def _loop_watch(key: Any) -> _LoopWatch:
    """The watch of a loop, made if it has none."""
    found = _BY_LOOP.get(id(key))
    if found is None or not found.serves or found.key is not key:
        _BY_LOOP[id(key)] = found = _LoopWatch(key)
    return found


class LoopDriver:
    """A running event loop, through `_uring.event_loops`."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self._watch: _LoopWatch | None = None

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """See `Driver`."""
        if self._watch is None or not self._watch.serves:  # a watch ends while nothing is watched
            self._watch = _loop_watch(self._key)
        self._watch.used()
        self._watch.readiness.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """See `Driver`."""
        if self._watch is not None and self._watch.serves:
            self._watch.readiness.unwatch(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        bind(self._key).later(seconds, callback)

    def post(self, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        try:
            bind(self._key).call_soon_threadsafe(callback)
        except Exception as error:  # trio.RunFinishedError is a RuntimeError; uvloop raises what it likes
            raise RuntimeError("the loop has ended") from error

    def listen(self) -> None:
        """See `Driver`. A loop always does."""

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """See `Driver`."""
        _in_thread(self, work, done, lost)


# Seconds that a loop keeps watching with nothing to watch.
_KEPT_S = 1.0
_ALL: "weakref.WeakSet[ThreadDriver]" = weakref.WeakSet()
_BY_LOOP: "weakref.WeakValueDictionary[int, _LoopWatch]" = weakref.WeakValueDictionary()
_forks = 0


def fork_count() -> int:
    """How many forks lie between the import of this module and this process."""
    return _forks


_kept = threading.local()


@contextmanager
def this_thread() -> Iterator[ThreadDriver]:
    """A ThreadDriver for one call. One that other threads could wake is not reused."""
    spare: list[ThreadDriver] = _kept.__dict__.setdefault("spare", [])
    driver = spare.pop() if spare else ThreadDriver()
    try:
        yield driver
    finally:
        if driver.is_clean() and not spare:
            spare.append(driver)
        else:
            driver.close()


def _forget() -> None:
    """In a forked child: drop what watches the connections of the parent."""
    global _kept, _forks
    _kept = threading.local()
    _forks += 1
    cut_off_all()
    for driver in list(_ALL):
        driver.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
