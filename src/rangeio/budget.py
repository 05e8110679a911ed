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

from _uring.event_loops import bind, current_key
from _uring.waiters import tell, tell_failure

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


# How long a call waits before it looks whether this is a child that a signal handler forked meanwhile.
_LOOK_S = 1.0


class Loan:
    """Bytes that a stream may read ahead, given back by `close`, or by letting go of it."""

    __slots__ = ("_budget", "_epoch", "nbytes")

    def __init__(self, budget: "Budget", epoch: int) -> None:
        self._budget, self._epoch = budget, epoch
        self.nbytes = 0

    def close(self) -> None:
        """Give it back. A second call does nothing."""
        if self.nbytes:
            self._budget._return_loan(self, self._epoch)

    __del__ = close


class _Claim:
    """The bytes of one call: not asked for yet, waited for, or held, until `close`, or until it is let go of.

    What happened is written down where it happens, so that a signal handler may raise at any point and nothing is lost.
    """

    __slots__ = ("_budget", "epoch", "held", "nbytes", "wake")

    def __init__(self, budget: "Budget", nbytes: int) -> None:
        self._budget, self.nbytes = budget, nbytes
        self.epoch = 0
        self.held = False
        self.wake: Callable[[], None] | None = None

    def take(self) -> None:
        """Wait, unless this thread runs a loop: it must not wait for reads that only this loop can end."""
        woken = threading.Event()
        if self._budget._enqueue(self, woken.set, wait=not _loop_is_running()):
            return
        while not woken.wait(_LOOK_S):
            if self.epoch != self._budget._epoch:
                self.take()
                return

    async def take_async(self) -> None:
        """Wait on the loop that runs. What fits makes no future."""
        if self._budget._take_now(self):
            return
        binding: Any = bind(current_key())
        waiter = binding.waiter(None)
        if not self._budget._enqueue(self, partial(_wake, binding, waiter), wait=True):
            await binding.wait(waiter)

    def close(self) -> None:
        """Leave the line, or give back. A second call does nothing."""
        if self.epoch:
            self._budget._end(self)

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
        self._waiting: deque[_Claim] = deque()

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
            loan = Loan(self, self._epoch)
            loan.nbytes = granted
            self._bytes_lent += granted
            return loan

    def during(self, nbytes: int, call: Callable[[], _T]) -> _T:
        """`call()` with `nbytes` taken, once they fit."""
        if nbytes < LEAST:
            return call()
        claim = _Claim(self, nbytes)
        try:
            claim.take()
            return call()
        finally:
            claim.close()

    async def while_awaiting(self, nbytes: int, call: Callable[[], Awaitable[_T]]) -> _T:
        """`await call()` with `nbytes` taken, once they fit."""
        if nbytes < LEAST:
            return await call()
        claim = _Claim(self, nbytes)
        try:
            await claim.take_async()
            return await call()
        finally:
            claim.close()

    def _enqueue(self, claim: _Claim, wake: Callable[[], None], *, wait: bool) -> bool:
        """Take its bytes now, or stand in line for them; whether they are taken."""
        with self._lock:
            claim.wake = wake
            if self._take_now(claim, wait=wait):
                return True
            self._waits += 1
            self._waiting.append(claim)
            return False

    def _take_now(self, claim: _Claim, *, wait: bool = True) -> bool:
        """Whether its bytes could be taken at once; with wait=False they are, whatever stands in line."""
        with self._lock:
            claim.epoch = self._epoch
            if wait and (self._waiting or not self._fits(claim.nbytes)):
                return False
            self._book(claim)
            return True

    def _fits(self, nbytes: int) -> bool:
        return self._calls == 0 or self._bytes_called + self._bytes_lent + nbytes <= self._limit

    def _book(self, claim: _Claim) -> None:
        claim.held = True
        self._calls += 1
        self._bytes_called += claim.nbytes

    def _end(self, claim: _Claim) -> None:
        with self._lock:
            if claim.epoch != self._epoch:
                return  # of the parent of this forked child
            if claim.held:
                claim.held = False
                self._calls -= 1
                self._bytes_called -= claim.nbytes
            if claim in self._waiting:
                self._waiting.remove(claim)
            claim.epoch = 0
            self._admit()

    def _return_loan(self, loan: Loan, epoch: int) -> None:
        with self._lock:
            if epoch == self._epoch:
                self._bytes_lent -= loan.nbytes
                loan.nbytes = 0
                self._admit()

    def _admit(self) -> None:
        """Let those in front of the line go, in order, so that a large call is not overtaken for ever."""
        while self._waiting and (self._waiting[0].held or self._fits(self._waiting[0].nbytes)):
            claim = self._waiting[0]
            if not claim.held:
                self._book(claim)
            if claim.wake is not None:
                claim.wake()
            # Last: one that was not told because a signal handler raised is told by the next who comes here.
            if self._waiting and self._waiting[0] is claim:
                self._waiting.popleft()


def _loop_is_running() -> bool:
    """Whether this thread runs an event loop."""
    try:
        current_key()
    except RuntimeError:
        return False
    return True


def _wake(binding: Any, waiter: Any) -> None:
    try:
        failed = partial(tell_failure, [(waiter, "", None, None)])
        binding.call_soon_threadsafe(tell, waiter, failed=failed)
    except RuntimeError:
        pass  # its loop is closed; the task, when it is collected, leaves the line or gives back


SHARED = Budget(default_bytes())
"""The budget of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED._begin)
