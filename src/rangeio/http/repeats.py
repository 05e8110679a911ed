"""What nearly all reads are, as one call of the core: the exchange of the read before, with other numbers in it."""

import os
from functools import partial
from typing import TYPE_CHECKING

from _uring.surface import REPEAT_ROOM
from rangeio.http.lanes import Brought
from rangeio.http.pace import MEASURED
from rangeio.http.reads import Read
from rangeio.http.remote import Remote
from rangeio.policy import RETRIES, Timeout
from rangeio.traffic import REQUESTS

if TYPE_CHECKING:
    from _uring import Reactor
    from _uring.surface import Repeat, Strayed

# After this a request is made up anew: its signature may have expired, or the credentials.
_GOOD_S = 0.5


def repeat_for(reactor: "Reactor", remote: Remote, timeout: Timeout) -> "Repeat | None":
    """Reads of small ranges from now on; None unless plain replies are to be expected, and a connection is idle.

    Cost: 10 us.
    """
    plain, pool, target = remote.plain, remote.access.pool, remote.target
    if plain is None or remote.kept is not None or remote.access.credentials.stale:
        return None
    wire = pool.peek(target.origin)
    reply = None if wire is None or wire.tls else plain.repeated()
    if wire is None or reply is None:
        return None
    request = remote.ranged(target, wire.absolute), b"-", plain.suffix
    if max(sum(map(len, request)), sum(map(len, reply[0]))) > REPEAT_ROOM:
        return None
    return reactor.repeat(
        pool,
        pool.idle(target.origin),
        request,
        reply,
        size=plain.size,
        most=MEASURED - 1,
        absolute=wire.absolute,
        good_s=_GOOD_S,
        timeout=(remote.patience_s(timeout), timeout.total_s),
        asked=REQUESTS.add,
        answered=partial(RETRIES.succeeded, target.origin),
    )


def brought_by(read: Read, strayed: "Strayed") -> tuple[Brought | None, OSError | None]:
    """What came of a read that a repeat has begun, whose memory it is given: see `Lane.readable`, and an error."""
    _, place, _, start, stop, count, errno, head = strayed
    memory = place.pop()
    if read.into is None:
        read.lands_in(memory)
    if errno and not count:
        return None, OSError(errno, os.strerror(errno))
    return (count, (head, len(head), b""), read.piece(start, stop)), None
