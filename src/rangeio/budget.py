"""The process-wide budget of bytes in flight, so that many readers together do not use all memory.

There are two kinds of use:

- A *claim* of a call (`read_ranges` of a large total) waits until its bytes fit. Calls end by themselves, so the wait
  ends. One call is always admitted, whatever its size and whatever else is in use.
- A *grant* for prefetch (`stream`, `copy`, `sink`) never waits: it gets the free bytes, possibly none, and the stream
  then reads one chunk at a time. So a consumer that stops between two chunks does not block other calls.

Small reads do not use the budget: accounting for them would cost more than the reads.
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
"""Calls of fewer bytes than this do not use the budget."""


def default_bytes() -> int:
    """An eighth of the machine's memory, at most 2 GiB."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 8 << 30
    return min(2 << 30, memory // 8)


# How often a waiting call checks whether it now runs in a child that a signal handler forked.
_FORK_CHECK_S = 1.0


class Grant:
    """Bytes that a stream may read ahead. `close`, or deleting it, returns them."""

    __slots__ = ("_budget", "_epoch", "nbytes")

    def __init__(self, budget: "Budget", epoch: int) -> None:
        self._budget, self._epoch = budget, epoch
        self.nbytes = 0

    def close(self) -> None:
        """Return the bytes. A second call does nothing."""
        if self.nbytes:
            self._budget._return_grant(self, self._epoch)

    __del__ = close


class _Claim:
    """The bytes of one call: not requested yet, queued, or held. `close`, or deleting it, ends it.

    Every state change is recorded where it happens, so that nothing is lost if a signal handler raises at any point.
    """

    __slots__ = ("_budget", "epoch", "held", "nbytes", "wake")

    def __init__(self, budget: "Budget", nbytes: int) -> None:
        self._budget, self.nbytes = budget, nbytes
        self.epoch = 0
        self.held = False
        self.wake: Callable[[], None] | None = None

    def take(self) -> None:
        """Wait for the bytes; without waiting if this thread runs an event loop, which may have to complete the reads
        that hold them.
        """
        if self._budget._take_now(self):
            return
        woken = threading.Event()
        if self._budget._enqueue(self, woken.set, wait=not _loop_is_running()):
            return
        while not woken.wait(_FORK_CHECK_S):
            if self.epoch != self._budget._epoch:
                self.take()
                return

    async def take_async(self) -> None:
        """Wait on the running event loop. Creates no future if the bytes fit at once."""
        if self._budget._take_now(self):
            return
        binding: Any = bind(current_key())
        waiter = binding.waiter(None)
        if not self._budget._enqueue(self, partial(_wake, binding, waiter), wait=True):
            await binding.wait(waiter)

    def close(self) -> None:
        """Leave the queue, or return the bytes. A second call does nothing."""
        if self.epoch:
            self._budget._end(self)

    __del__ = close


class Budget:
    """The limit of bytes in flight and the bytes in use. Thread-safe; works on any event loop.

    A forked child starts with nothing in use, because the reads of its parent belong to the parent.
    """

    def __init__(self, nbytes: int) -> None:
        self._epoch = 0
        self.resize(nbytes)
        self._begin()

    def _begin(self) -> None:
        # Reentrant, because garbage collection may return a Grant at any point, also in these methods.
        self._lock = threading.RLock()
        self._epoch += 1
        self._calls = self._bytes_called = self._bytes_granted = self._waits = 0
        self._waiting: deque[_Claim] = deque()

    def resize(self, nbytes: int) -> None:
        """Set the limit to `nbytes`. It may be smaller than one read: then large reads run one by one."""
        if nbytes < 0:
            raise ValueError(f"a budget must not be negative, got {nbytes}")
        self._limit = nbytes

    def stats(self) -> dict[str, int]:
        """budget_bytes: the limit; budget_in_use: claimed and granted now; budget_waits: calls that had to wait."""
        with self._lock:
            used = self._bytes_called + self._bytes_granted
            return {"budget_bytes": self._limit, "budget_in_use": used, "budget_waits": self._waits}

    def grant(self, nbytes: int) -> Grant:
        """A grant of at most `nbytes`, as far as they are free."""
        with self._lock:
            granted = max(0, min(nbytes, self._limit - self._bytes_called - self._bytes_granted))
            grant = Grant(self, self._epoch)
            grant.nbytes = granted
            self._bytes_granted += granted
            return grant

    def during(self, nbytes: int, call: Callable[[], _T]) -> _T:
        """Wait until `nbytes` fit, then run `call()` with them claimed."""
        if nbytes < LEAST:
            return call()
        claim = _Claim(self, nbytes)
        try:
            claim.take()
            return call()
        finally:
            claim.close()

    async def while_awaiting(self, nbytes: int, call: Callable[[], Awaitable[_T]]) -> _T:
        """Wait until `nbytes` fit, then `await call()` with them claimed."""
        if nbytes < LEAST:
            return await call()
        claim = _Claim(self, nbytes)
        try:
            await claim.take_async()
            return await call()
        finally:
            claim.close()

    def _enqueue(self, claim: _Claim, wake: Callable[[], None], *, wait: bool) -> bool:
        """Take the bytes of a claim now, or queue it; returns whether they were taken."""
        with self._lock:
            claim.wake = wake
            if self._take_now(claim, wait=wait):
                return True
            self._waits += 1
            self._waiting.append(claim)
            return False

    def _take_now(self, claim: _Claim, *, wait: bool = True) -> bool:
        """Take the bytes of a claim if they fit and nobody is queued, or in any case if not `wait`."""
        with self._lock:
            claim.epoch = self._epoch
            if wait and (self._waiting or not self._fits(claim.nbytes)):
                return False
            self._book(claim)
            return True

    def _fits(self, nbytes: int) -> bool:
        return self._calls == 0 or self._bytes_called + self._bytes_granted + nbytes <= self._limit

    def _book(self, claim: _Claim) -> None:
        claim.held = True
        self._calls += 1
        self._bytes_called += claim.nbytes

    def _end(self, claim: _Claim) -> None:
        with self._lock:
            if claim.epoch != self._epoch:
                return  # a claim of the parent process
            if claim.held:
                claim.held = False
                self._calls -= 1
                self._bytes_called -= claim.nbytes
            if claim in self._waiting:
                self._waiting.remove(claim)
            claim.epoch = 0
            self._admit()

    def _return_grant(self, grant: Grant, epoch: int) -> None:
        with self._lock:
            if epoch == self._epoch:
                self._bytes_granted -= grant.nbytes
                grant.nbytes = 0
                self._admit()

    def _admit(self) -> None:
        """Admit queued claims in order, so that a large call is not overtaken forever."""
        while self._waiting and (self._waiting[0].held or self._fits(self._waiting[0].nbytes)):
            claim = self._waiting[0]
            if not claim.held:
                self._book(claim)
            if claim.wake is not None:
                claim.wake()
            # Removed last: if a signal handler raises before the wake-up, the next call of _admit repeats it.
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
        pass  # its loop is closed; garbage collection of the task closes the claim


SHARED = Budget(default_bytes())
"""The budget of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SHARED._begin)
