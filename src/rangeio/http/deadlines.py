"""Time limits: connecting, the first byte, the next byte, the whole call; and the reactions to silence."""

from collections.abc import Callable
from typing import Any

from rangeio.errors import TimedOutError
from rangeio.http.attempt import Attempt
from rangeio.http.connection_pool import is_silent
from rangeio.http.error_mapping import too_slow


class Check:
    """The timer of an engine. A loop holds a timer until it expires, which must not hold an engine that has ended: with
    many reads the garbage collector would look at all of them, again and again. due: whether the timer is running.
    """

    __slots__ = ("_guard", "_work", "due")

    def __init__(self, guard: Callable[[Callable[[], None]], Any], work: Callable[[], None]) -> None:
        """guard: calls `work`."""
        self._guard: Callable[[Callable[[], None]], Any] | None = guard
        self._work: Callable[[], None] | None = work
        self.due = False

    def __call__(self) -> None:
        """The timer has expired."""
        self.due = False
        if self._guard is not None and self._work is not None:
            self._guard(self._work)

    def clear(self) -> None:
        """The engine has ended."""
        self._guard = self._work = None


def look(attempt: Attempt, now: float, began: float) -> None:
    """Check the time limits of an attempt. began: the start of the call of the Reader."""
    timeout = attempt.read.timeout
    if timeout.total_s is not None and now - began > timeout.total_s:
        attempt.abandon()
        late = TimedOutError(f"it took longer than total_s={timeout.total_s:g}", status="persistent")
        attempt.engine.gave_up(attempt, attempt.as_error(late))
        return
    if attempt.queued and attempt.engine.pool.is_stuck():
        attempt.queued = False
        attempt.since, attempt.target = now, attempt.destination
        attempt.engine.pool.reserve(attempt.target.origin, force=True)
        attempt.dial(attempt.target.origin)
        return
    if attempt.dialing and timeout.connect_s is not None and now - attempt.since > timeout.connect_s:
        attempt.dialing = None  # its result is no longer needed
        attempt.fail(too_slow(timeout.connect_s))
        return
    response = attempt.response
    if attempt.connection is None or response is None:
        return  # connecting, or pausing before a retry
    name = "idle_s" if response.started else "first_byte_s"
    bound = getattr(timeout, name)
    hedge_s = None if response.started or attempt.hedged else attempt.read.remote.hedge_s
    silent_s = now - attempt.since
    if not response.started and not attempt.connection.used and is_silent(silent_s):
        attempt.fall_silent()
    if silent_s <= min(limit for limit in (bound, hedge_s, silent_s) if limit is not None):
        return
    if attempt.connection.has_something():
        return  # the loop was busy: a timer may run before the socket is read
    if hedge_s is not None and silent_s > hedge_s:
        attempt.engine.hedge(attempt)
    if bound is not None and silent_s > bound:
        attempt.abandon()
        attempt.save(response, TimedOutError(f"no bytes arrived within {name}={bound:g}"))
