"""Which descriptors are readable: asked by the thread that waits, or by a thread of its own for a loop that cannot."""

import os
import select
import selectors
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from rangeio.errors import from_native
from rangeio.threads import start_thread

_T = TypeVar("_T")
# Seconds after which the thread looks whether its loop has ended.
_LOOK_S = 1.0


def made(make: Callable[[], _T]) -> _T:
    """Make an object that needs descriptors; without a free descriptor, raise an Error that says so."""
    try:
        return make()
    except OSError as error:
        what = "waiting for the server could not start"
        raise from_native("errno", error.errno or 0, "", None, None, what) from error


class Readiness:
    """Which of the watched descriptors are readable. Uses epoll itself where it exists, because `selectors` doubles
    the cost of an event. One thread.
    """

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], object]] = {}
        self._epoll = made(select.epoll) if hasattr(select, "epoll") else None
        self._selector = None if self._epoll else made(selectors.DefaultSelector)

    def begin_anew(self) -> None:
        """In a forked child: replace the descriptor by a new one with the same number."""
        if self._epoll:
            with select.epoll() as own:
                for fd in self.watched:
                    own.register(fd, select.EPOLLIN)
                os.dup2(own.fileno(), self._epoll.fileno(), inheritable=False)
        if self._selector:
            self._selector.close()  # a child does not inherit it, as with kqueue(2)
            self._selector = selectors.DefaultSelector()
            for fd in self.watched:
                self._selector.register(fd, selectors.EVENT_READ)

    def fileno(self) -> int | None:
        """A descriptor that is readable when one of the watched ones is; None where select(2) or poll(2) waits."""
        fileno: Callable[[], int] | None = getattr(self._epoll or self._selector, "fileno", None)
        return None if fileno is None else fileno()

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
        """Call the callbacks of those that are readable, or become readable within that time."""
        for fd in self._ready(wait_s):
            if callback := self.watched.get(fd):  # an earlier callback may have called `unwatch`
                callback()

    def _ready(self, wait_s: float | None) -> list[int]:
        if self._epoll:
            return [fd for fd, _ in self._epoll.poll(wait_s)]
        assert self._selector is not None
        return [key.fd for key, _ in self._selector.select(wait_s)]

    def close(self) -> None:
        """Stop watching everything."""
        for waiting in (self._epoll, self._selector):
            if waiting is not None:
                waiting.close()
        self.watched.clear()


class ThreadReadiness:
    """As `Readiness`, but a thread waits, and has a loop call back. For loops that watch no descriptors: asyncio's
    Proactor loop, the default on Windows ("Platform Support" in the documentation of asyncio).

    A descriptor that is readable is not watched again before its callback has run. `watch` and `unwatch` are called in
    the thread of the loop; a callback may be called once after a descriptor was closed and its number used again.
    """

    def __init__(self, post: Callable[[Callable[[], None]], object]) -> None:
        """post: calls a function in the thread of the loop; RuntimeError if it has ended."""
        self.watched: dict[int, Callable[[], object]] = {}
        self._post = post
        self._selector = made(selectors.DefaultSelector)
        self._changes: deque[tuple[int, bool]] = deque()
        self._wake, self._heard = made(socket.socketpair)
        for end in (self._wake, self._heard):
            end.setblocking(False)
        self._selector.register(self._heard, selectors.EVENT_READ)
        self._closed = False
        start_thread(self._run)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """See `Readiness`."""
        self.watched[fd] = callback
        self._change(fd, True)

    def unwatch(self, fd: int) -> None:
        """See `Readiness`."""
        if self.watched.pop(fd, None) is not None:
            self._change(fd, False)

    def close(self) -> None:
        """Stop watching everything; the thread ends."""
        self._closed = True
        self.watched.clear()
        self._ring()

    def _change(self, fd: int, watched: bool) -> None:
        self._changes.append((fd, watched))
        self._ring()

    def _ring(self) -> None:
        try:
            self._wake.send(b"\0")
        except OSError:  # full: the thread will wake up; or it has ended
            pass

    def _run(self) -> None:
        try:
            while not self._closed:
                self._apply()
                for key in self._select():
                    if key.fileobj is self._heard:
                        self._heard.recv(4096)
                    else:
                        self._selector.unregister(key.fd)
                        self._post(partial(self._call_back, key.fd))
                self._post(_nothing)  # RuntimeError if the loop has ended
        except RuntimeError:
            pass
        finally:
            self._selector.close()
            self._wake.close()
            self._heard.close()

    def _select(self) -> "list[selectors.SelectorKey]":
        try:
            return [key for key, _ in self._selector.select(_LOOK_S)]
        except (OSError, ValueError):  # one was closed meanwhile, and its `unwatch` is on its way
            self._drop_closed()
            return []

    def _drop_closed(self) -> None:
        for fd in [fd for fd in self._selector.get_map() if isinstance(fd, int)]:
            try:
                select.select([fd], [], [], 0)
            except (OSError, ValueError):
                self._selector.unregister(fd)

    def _apply(self) -> None:
        while self._changes:
            fd, watched = self._changes.popleft()
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
            if watched:
                try:
                    self._selector.register(fd, selectors.EVENT_READ)
                except (OSError, ValueError):  # closed
                    pass

    def _call_back(self, fd: int) -> None:
        callback = self.watched.get(fd)
        if callback is None:
            return
        callback()
        if self.watched.get(fd) is callback:
            self._change(fd, True)


def _nothing() -> None:
    pass
