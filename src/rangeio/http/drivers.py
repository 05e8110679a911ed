"""What waits for the engine: the caller's own thread, asyncio (uvloop too) or trio. All do the same few things."""

import heapq
import os
import select
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeAlias, TypeVar

from _uring.event_loops import bind
from rangeio.errors import from_native
from rangeio.http.connection import cut_off_all

_T = TypeVar("_T")
Work: TypeAlias = Callable[[], Any]
Done: TypeAlias = Callable[[Any], None]


class Driver(Protocol):
    """All callbacks come in the driver's own thread, `post`ed ones too."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever `fd` is readable, until `unwatch`."""

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed or given away."""

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once."""

    def post(self, callback: Callable[[], None]) -> None:
        """Call back soon. From any thread; RuntimeError if the loop is closed."""

    def listen(self) -> None:
        """Another thread is about to `post`."""

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """Have `work` done where it may block, then call `done` with its result or exception.

        alone: nothing else can go on meanwhile. lost: called instead, in some thread, if the driver has ended by then.
        """


class GuardedDriver:
    """Another driver, each callback to which goes through `guard`, which lets no exception pass but those that are
    meant for the program: a loop that is called back does not know whose read has failed.
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
    """One short-lived thread for each connection that is opened: there are few, and none waits for another."""

    def body() -> None:
        result = _outcome(work)
        try:
            driver.post(lambda: done(result))
        except RuntimeError:
            lost(result)

    try:
        threading.Thread(target=body, name="rangeio connecting", daemon=True).start()
    except RuntimeError as error:  # no thread is to be had
        reason = error
        driver.post(lambda: done(reason))


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return error


def _made(make: Callable[[], _T]) -> _T:
    """Something with descriptors of its own; where there is none left, an Error of the tree that says so."""
    try:
        return make()
    except OSError as error:
        what = "the wait for the server could not begin"
        raise from_native("errno", error.errno or 0, "", None, None, what) from error


class Readiness:
    """Which of some descriptors are readable. Where there is epoll it is used as it is: what `selectors` makes of each
    event costs as much as the event. One thread.
    """

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], object]] = {}
        self._epoll = _made(select.epoll) if hasattr(select, "epoll") else None
        self._selector = None if self._epoll else _made(selectors.DefaultSelector)

    def begin_anew(self) -> None:
        """In a forked child: by a descriptor of our own, of the same number."""
        if self._epoll:
            with select.epoll() as own:
                for fd in self.watched:
                    own.register(fd, select.EPOLLIN)
                os.dup2(own.fileno(), self._epoll.fileno(), inheritable=False)
        if self._selector:
            self._selector.close()  # what it has is the kernel's of the parent alone, as by kqueue(2)
            self._selector = selectors.DefaultSelector()
            for fd in self.watched:
                self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Readable when one of them is."""
        waiting = self._epoll or self._selector
        return waiting.fileno()  # type: ignore[union-attr, no-any-return]

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """See `Driver`."""
        if self._epoll:
            self._epoll.register(fd, select.EPOLLIN)
        elif self._selector:
            self._selector.register(fd, selectors.EVENT_READ)
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """See `Driver`."""
        if self.watched.pop(fd, None) is None:
            return
        if self._epoll:
            self._epoll.unregister(fd)
        elif self._selector:
            self._selector.unregister(fd)

    def call_back(self, wait_s: float | None) -> None:
        """For those that are, or come to be so in that time."""
        for fd in self._ready(wait_s):
            if callback := self.watched.get(fd):  # one before may have ended the watch of another
                callback()

    def _ready(self, wait_s: float | None) -> list[int]:
        if self._epoll:
            return [fd for fd, _ in self._epoll.poll(wait_s)]
        assert self._selector is not None
        return [key.fd for key, _ in self._selector.select(wait_s)]

    def close(self) -> None:
        """Nothing more is watched."""
        for waiting in (self._epoll, self._selector):
            if waiting is not None:
                waiting.close()
        self.watched.clear()


class ThreadDriver:
    """The caller's thread, in `step`. For one call at a time; not shared between threads but for `post`."""

    def __init__(self) -> None:
        self._readiness = Readiness()
        self.watch, self.unwatch = self._readiness.watch, self._readiness.unwatch
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._posted: deque[Callable[[], None]] = deque()
        self._wake: socket.socket | None = None
        self._heard: socket.socket | None = None
        self._closed = False
        _ALL.add(self)

    def begin_anew(self) -> None:
        """In a child that a handler of a signal forked amid `step`: watch by own descriptors of the same number."""
        if self._closed:
            return
        if self._wake is not None and self._heard is not None:
            for theirs, ours in zip((self._heard, self._wake), socket.socketpair(), strict=True):
                os.dup2(ours.fileno(), theirs.fileno(), inheritable=False)
                ours.close()
        self._readiness.begin_anew()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Driver`."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def post(self, callback: Callable[[], None]) -> None:
        """See `Driver`. Heard only while something was offloaded or waits for a connection."""
        if self._closed:
            raise RuntimeError("the call has ended")
        self._posted.append(callback)
        if self._closed:  # meanwhile; was it done all the same?
            try:
                self._posted.remove(callback)
            except ValueError:
                return
            raise RuntimeError("the call has ended")
        if self._wake is not None:
            try:
                self._wake.send(b"!")
            except OSError:
                pass  # full: it will wake; closed: nobody waits

    def offload(self, work: Work, done: Done, lost: Done, *, alone: bool) -> None:
        """See `Driver`. What is alone is done here."""
        if alone:
            done(_outcome(work))
        else:
            self.listen()
            _in_thread(self, work, done, lost)

    def listen(self) -> None:
        """Have `post` wake this thread."""
        if self._wake is None:
            self._heard, self._wake = _made(socket.socketpair)
            self._heard.setblocking(False)
            self._wake.setblocking(False)
            heard = self._heard
            self.watch(heard.fileno(), lambda: heard.recv(4096))

    def step(self) -> None:
        """Wait for something to happen, and let it."""
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
        """Whether it may serve another call: nothing watched, nobody posts. Timers are forgotten."""
        self._timers.clear()
        return self._wake is None and not self._readiness.watched

    def close(self) -> None:
        """Give its descriptors back. What was posted and not done yet is done."""
        self._closed = True
        while self._posted:
            self._posted.popleft()()
        self._readiness.close()
        self._timers.clear()
        for end in (self._wake, self._heard):
            if end is not None:
                end.close()


class _LoopWatch:
    """What the engine watches on one loop: all of it through a descriptor of ours, which the loop watches.

    To watch a connection anew for each read would cost a loop as much as the read. And libuv watches a connection that
    is reset while data waits on it no longer, of which add_reader's callback is not told (uvloop 0.23.0); a descriptor
    of ours has no errors. The loop holds this by its watch, and nothing else does: with the loop it ends; and when
    nothing was watched for a while.
    """

    def __init__(self, key: Any) -> None:
        self.key = key
        self.readiness = Readiness()
        self._forks = _forks
        self.ended = False
        self._binding: Any = bind(key)
        self._binding.watch(self.readiness.fileno(), self.ready, gone=self.end)
        self._look()

    @property
    def serves(self) -> bool:
        """Whether it is of this process, and watched."""
        return not self.ended and self._forks == _forks

    def ready(self) -> None:
        """Something is readable."""
        if self.serves:
            self.readiness.call_back(0)

    def _look(self) -> None:
        self._used = False
        self._binding.later(_KEPT_S, self._end_if_unused)

    def used(self) -> None:
        """It is to be kept for a while."""
        self._used = True

    def _end_if_unused(self) -> None:
        if not self.serves:
            return
        if self._used or self.readiness.watched:
            self._look()
        else:
            self._binding.unwatch(self.readiness.fileno())
            self.end()

    def end(self) -> None:
        """The loop watches no longer. A second call does nothing."""
        if not self.ended:
            self.ended = True
            self.readiness.close()


def _loop_watch(key: Any) -> _LoopWatch:
    """That of a loop, made anew if it has none."""
    found = _BY_LOOP.get(id(key))
    if found is None or not found.serves or found.key is not key:
        _BY_LOOP[id(key)] = found = _LoopWatch(key)
    return found


class LoopDriver:
    """A running event loop, as what `_uring.event_loops` binds."""

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


# For so long a loop is kept watching, though there is nothing to watch.
_KEPT_S = 1.0
_ALL: "weakref.WeakSet[ThreadDriver]" = weakref.WeakSet()
_BY_LOOP: "weakref.WeakValueDictionary[int, _LoopWatch]" = weakref.WeakValueDictionary()
_forks = 0


def fork_count() -> int:
    """How often this process was made by a fork, since this was imported."""
    return _forks


_kept = threading.local()


@contextmanager
def this_thread() -> Iterator[ThreadDriver]:
    """A ThreadDriver for one call; one that had to listen to other threads is not used again."""
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
    """In a forked child: what watches the parent's connections is the parent's, too."""
    global _kept, _forks
    _kept = threading.local()
    _forks += 1
    cut_off_all()
    for driver in list(_ALL):
        driver.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
