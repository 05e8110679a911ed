"""One budget of bytes in flight for the whole process, so that many readers at once do not take all memory.

Two kinds of use, because two things can go wrong:

- A *call* (`read_ranges` of a large total) waits until its bytes fit. Calls end by themselves, so waiting for them
  ends; and one call is always let through, however large it is and whatever else is held.
- A *loan* for reading ahead (`stream`, `copy`, `sink`) never waits: it gets what is free, perhaps nothing, and the
  stream goes on with one chunk at a time. A consumer that has stopped between two chunks therefore blocks nobody.

Small reads take nothing: looking here would cost more than they do.
"""

import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from _uring.loops import bind, current_key

_T = TypeVar("_T")

LEAST = 1 << 20
"""Calls of fewer bytes than this take nothing."""


def default_bytes() -> int:
    """An eighth of the machine's memory, at most 2 GiB."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 8 << 30
    return min(2 << 30, memory // 8)


class Loan:
    """Bytes that a stream may read ahead, given back by `close`, or by letting go of it."""

    __slots__ = ("_budget", "_epoch", "nbytes")

    def __init__(self, budget: "Budget", nbytes: int, epoch: int) -> None:
        self._budget, self._epoch = budget, epoch
        self.nbytes = nbytes

    def close(self) -> None:
        """Give it back. A second call does nothing."""
        nbytes, self.nbytes = self.nbytes, 0
        self._budget._return_loan(nbytes, self._epoch)

    __del__ = close


class Budget:
    """Bytes in flight: how many there may be, how many there are. Any thread, any loop.

    A forked child starts with nothing taken: what its parent has in flight is the parent's.
    """

    def __init__(self, nbytes: int) -> None:
        self._epoch = 0
        self.resize(nbytes)
        self._begin()

    def _begin(self) -> None:
        # Reentrant, because a Loan may be collected, and so given back, anywhere: in here as well.
        self._lock = threading.RLock()
        self._epoch += 1
        self._calls = self._bytes_called = self._bytes_lent = self._waits = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def resize(self, nbytes: int) -> None:
        """From now on allow `nbytes`. Smaller than one read is fine: reads then go one by one."""
        if nbytes < 0:
            raise ValueError(f"a budget must not be negative, got {nbytes}")
        self._limit = nbytes

    def stats(self) -> dict[str, int]:
        """budget_bytes: allowed; budget_in_use: taken and lent now; budget_waits: calls that had to wait so far."""
        with self._lock:
            used = self._bytes_called + self._bytes_lent
            return {"budget_bytes": self._limit, "budget_in_use": used, "budget_waits": self._waits}

    def lend(self, nbytes: int) -> Loan:
        """At most `nbytes`, as far as they are free."""
        with self._lock:
            granted = max(0, min(nbytes, self._limit - self._bytes_called - self._bytes_lent))
            self._bytes_lent += granted
            return Loan(self, granted, self._epoch)

    def during(self, nbytes: int, call: Callable[[], _T]) -> _T:
        """`call()` with `nbytes` taken, once they fit."""
        if nbytes < LEAST:
            return call()
        self._take(nbytes)
        try:
            return call()
        finally:
            self._give(nbytes)

    async def while_awaiting(self, nbytes: int, call: Callable[[], Awaitable[_T]]) -> _T:
        """`await call()` with `nbytes` taken, once they fit."""
        if nbytes < LEAST:
            return await call()
        await self._take_async(nbytes)
        try:
            return await call()
        finally:
            self._give(nbytes)

    def _take(self, nbytes: int) -> None:
        if self._take_now(nbytes, fitting=not _loop_is_running()):
            return
        woken = threading.Event()
        if self._enqueue(nbytes, woken.set):
            return
        try:
            woken.wait()
        except BaseException:  # Ctrl-C
            self._leave(nbytes, woken.set)
            raise

    async def _take_async(self, nbytes: int) -> None:
        if self._take_now(nbytes):
            return
        binding: Any = bind(current_key())
        waiter = binding.waiter(None)
        wake = partial(_wake, binding, waiter)
        if self._enqueue(nbytes, wake):
            return
        try:
            await binding.wait(waiter)
        except BaseException:
            self._leave(nbytes, wake)
            raise

    def _take_now(self, nbytes: int, *, fitting: bool = True) -> bool:
        """Whether `nbytes` could be taken at once; with fitting=False they are, whatever stands in line."""
        with self._lock:
            if fitting and (self._waiting or not self._fits(nbytes)):
                return False
            self._book(nbytes)
            return True

    def _enqueue(self, nbytes: int, wake: Callable[[], None]) -> bool:
        """Take `nbytes` now, or stand in line for them; whether they are taken."""
        with self._lock:
            if self._take_now(nbytes):
                return True
            self._waits += 1
            self._waiting.append((nbytes, wake))
            return False

    def _fits(self, nbytes: int) -> bool:
        return self._calls == 0 or self._bytes_called + self._bytes_lent + nbytes <= self._limit

    def _book(self, nbytes: int) -> None:
        self._calls += 1
        self._bytes_called += nbytes

    def _give(self, nbytes: int) -> None:
        with self._lock:
            self._calls -= 1
            self._bytes_called -= nbytes
            self._admit()

    def _return_loan(self, nbytes: int, epoch: int) -> None:
        if nbytes and epoch == self._epoch:
            with self._lock:
                self._bytes_lent -= nbytes
                self._admit()

    def _admit(self) -> None:
        """Let those in front of the line go, in order, so that a large call is not overtaken for ever."""
        while self._waiting and self._fits(self._waiting[0][0]):
            nbytes, wake = self._waiting.popleft()
            self._book(nbytes)
            wake()

    def _leave(self, nbytes: int, wake: Callable[[], None]) -> None:
        """The caller gives up; it may have been admitted at the same moment."""
        with self._lock:
            try:
                self._waiting.remove((nbytes, wake))
            except ValueError:
                self._give(nbytes)


def _loop_is_running() -> bool:
    """Whether this thread runs an event loop: it must not wait for reads that only this loop can end."""
    try:
        current_key()
    except RuntimeError:
        return False
    return True


def _wake(binding: Any, waiter: Any) -> None:
    try:
        binding.call_soon_threadsafe(_settle, waiter)
    except RuntimeError:
        pass  # its loop is closed; the task, when it is collected, leaves the line or gives back


def _settle(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)


SHARED = Budget(default_bytes())
"""The budget of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED._begin)
