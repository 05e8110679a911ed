"""What takes too long: connecting, the first byte, the next one, all of it; and what a silence may mean."""

from rangeio.errors import TimedOutError
from rangeio.http.failures import too_slow
from rangeio.http.parts import Part
from rangeio.http.pool import is_silent


def look(part: Part, now: float, began: float) -> None:
    """End what takes too long. began: when the call of the Reader did."""
    timeout = part.read.timeout
    if timeout.total_s is not None and now - began > timeout.total_s:
        part.abandon()
        late = TimedOutError(f"it took longer than total_s={timeout.total_s:g}", status="persistent")
        part.home.gave_up(part, part.as_error(late))
        return
    if part.lined and part.home.pool.is_stuck():
        part.lined = False
        part.since, part.target = now, part.read.remote.target
        part.home.pool.reserve(part.target.origin, force=True)
        part.dial(part.target.origin)
        return
    if part.dialing and timeout.connect_s is not None and now - part.since > timeout.connect_s:
        part.dialing = None  # what comes of it is not wanted any more
        part.fail(too_slow(timeout.connect_s))
        return
    exchange = part.exchange
    if part.wire is None or exchange is None:
        return  # connecting, or pausing before a retry
    name = "idle_s" if exchange.started else "first_byte_s"
    bound = getattr(timeout, name)
    hedge_s = None if exchange.started or part.hedged else part.read.remote.hedge_s
    silent_s = now - part.since
    if not exchange.started and not part.wire.used and is_silent(silent_s):
        part.fall_silent()
    if silent_s <= min(limit for limit in (bound, hedge_s, silent_s) if limit is not None):
        return
    if part.wire.has_something():
        return  # the loop was busy: a timer may come before what was there to be received
    if hedge_s is not None and silent_s > hedge_s:
        part.home.hedge(part)
    if bound is not None and silent_s > bound:
        part.abandon()
        part.save(exchange, TimedOutError(f"nothing came for {name}={bound:g}"))
