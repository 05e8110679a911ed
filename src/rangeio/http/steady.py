"""The steady state of an object: its version and size are known, and a connection to its server is idle.

Over plain TCP the core then makes the reads (`_uring.steady`). This module prepares that, and is its twin for TLS and
without the core. Reads whose response is not plain go to the engine (`Unfinished`).
"""

import time
from collections.abc import Callable
from errno import EAGAIN
from functools import partial
from typing import TYPE_CHECKING

from _uring.records import MEASURED, REQUEST_ROOM, Unfinished
from rangeio.counters import REQUESTS
from rangeio.events import LISTENERS
from rangeio.http.connection import WOULD_BLOCK, Connection
from rangeio.http.observed import told_request, told_response
from rangeio.http.range_read import RangeRead
from rangeio.http.remote_object import RemoteObject
from rangeio.policy import RETRIES, Timeout

if TYPE_CHECKING:
    from typing_extensions import Self

    from _uring import Reactor
    from _uring.records import SteadyReads

# A request is rebuilt after this time: its signature or the credentials may have expired.
_GOOD_S = 0.5


def is_plain(read: RangeRead, most: int) -> bool:
    """Whether a read of at most `most` bytes can be a plain read. Limits its end to the end of the object."""
    remote = read.remote
    expected = remote.expected
    if expected is None or remote.kept is not None or remote.access.credentials.stale:
        return False
    if read.stop > expected.size:
        read.end_at(expected.size)
    return 0 < read.stop - read.start <= most


def steady_reads(
    reactor: "Reactor", remote: RemoteObject, timeout: Timeout, most: int
) -> "SteadyReads | None":
    """The steady state for reads of at most `most` bytes; None unless a plain TCP connection is idle. Cost: 5 us."""
    pool, target = remote.access.pool, remote.target
    if LISTENERS:
        return None  # the core tells nobody
    if target.origin.scheme == "https" or remote.expected is None or remote.kept is not None:
        return None
    idle = pool.peek(target.origin)
    if idle is None or idle.tls or remote.access.credentials.stale:
        return None
    request = remote.range_request(target, idle.absolute)
    if len(request.before) + len(request.after) > REQUEST_ROOM:
        return None
    return reactor.steady(
        pool.idle(target.origin),
        request,
        pool.give_back,
        most=most,
        absolute=idle.absolute,
        good_s=_GOOD_S,
        timeout=(remote.patience_s(timeout), timeout.total_s),
        asked=REQUESTS.add,
        answered=partial(RETRIES.succeeded, target.origin),
        measured=pool.latency(target.origin).record,
    )


def read_waiting(read: RangeRead) -> "Unfinished | bool":
    """Make a plain read on an idle connection, in the calling thread; False if none is idle."""
    transfer = PlainTransfer.begun(read)
    if transfer is None:
        return False
    try:
        transfer.receive(partial(transfer.connection.wait, seconds=read.remote.patience_s(read.timeout)))
        if not transfer.complete:
            return transfer.unfinished()
    except BaseException:  # Ctrl-C
        transfer.connection.close()
        raise
    transfer.give_back()
    return True


class _NotPlain(Exception):
    """The response is not plain: the engine must judge it."""


class PlainTransfer:
    """One range in flight on a connection, like `_uring.transfer`, for TLS and without the core.

    complete: all bytes are in place. over: it is complete, or the response is not plain.
    """

    __slots__ = (
        "_answered", "_asked", "_body", "_errno", "_error", "_head", "_placed", "_used", "connection", "over", "read",
        "sent", "since",
    )  # fmt: skip

    def __init__(self, read: RangeRead, connection: Connection) -> None:
        self.read, self.connection = read, connection
        self._body = read.piece(read.start, read.stop)
        self._head = self._asked = b""
        self._placed = self._used = 0
        self._errno = EAGAIN
        self._error: OSError | None = None
        self.over = False
        self._answered = 0.0
        self.sent = self.since = time.monotonic()

    @classmethod
    def begun(cls, read: RangeRead) -> "Self | None":
        """Send the request. None if no connection is idle."""
        remote = read.remote
        target = remote.target
        connection = remote.access.pool.take(target.origin)
        if connection is None:
            return None
        try:
            made = cls(read, connection)
            REQUESTS.add()
            if LISTENERS:
                told_request(read, read.start, read.stop, 1)
            made._asked = remote.range_request(target, connection.absolute).before
            made._send(remote.range_request_text(target, connection.absolute, read.start, read.stop))
        except BaseException:
            connection.close()
            raise
        return made

    @property
    def complete(self) -> bool:
        """See the class."""
        return self._placed == len(self._body)

    def _send(self, request: bytes) -> None:
        try:
            self.connection.send_all(request)
        except OSError as error:  # also if it would block, which an idle connection does not
            self._broken(error)

    def _broken(self, error: OSError) -> None:
        # Drop its frames, which hold this object and the caller's memory.
        self._error, self.over = error.with_traceback(None), True

    def receive(self, get: Callable[[memoryview], int], turns: int = 1 << 30) -> None:
        """Receive what has arrived with at most `turns` calls of `get`, which raises WOULD_BLOCK if nothing has."""
        try:
            while not self.over and turns > 0:
                self._take(get)
                turns -= 1
        except EOFError:
            self._errno, self.over = 0, True
        except _NotPlain:
            self.over = True
        except WOULD_BLOCK:
            pass
        except OSError as error:
            self._broken(error)

    def _take(self, get: Callable[[memoryview], int]) -> None:
        total_s = self.read.timeout.total_s
        if total_s is not None and self.since - self.sent > total_s:
            raise _NotPlain  # the engine raises the error
        if self._answered:
            count = get(self._body[self._placed :])
            self._placed += count
        else:
            scratch = self.connection.scratch
            count = get(scratch[self._used :] if self._used else scratch)
            self._used += count
        if not count:
            raise EOFError
        self.since = time.monotonic()
        if not self._answered:
            self._look_for_head()
        self.over = self._placed == len(self._body)

    def _look_for_head(self) -> None:
        """Copy the part of the body that arrived with the head to its place."""
        read, scratch, used = self.read, self.connection.scratch, self._used
        expected = read.remote.expected
        end = -1 if expected is None else expected.accepts(scratch[:used], read.start, read.stop)
        if end > 0 and used - end <= len(self._body):
            self._head, self._answered, self._placed = bytes(scratch[:end]), self.since, used - end
            if LISTENERS:
                told_response(read, 206, self.since - self.sent)
            self._body[: self._placed] = scratch[end:used]
            return
        self._head = bytes(scratch[:used])
        if end or used == len(scratch):
            raise _NotPlain

    def give_back(self) -> None:
        """Return the connection after a complete read; close it if it has received unsolicited bytes."""
        connection, nbytes = self.connection, len(self._body)
        connection.used = True
        try:
            RETRIES.succeeded(connection.origin)
            if nbytes >= MEASURED:
                connection.latency.record((self._answered - self.sent, self.since - self._answered, nbytes))
        except BaseException:  # Ctrl-C
            connection.close()
            raise
        if connection.holds_some():
            connection.close()
        else:
            self.read.remote.access.pool.give_back(connection)
        self.read.filled = nbytes

    def unfinished(self) -> Unfinished:
        """The state of the read, for the engine to continue."""
        read = self.read
        memory = read.buffer if read.into is None else read.into
        said = (self._head, self._placed, self._errno, self.sent, self.since, self._asked, self._error)
        return Unfinished(self.connection, [memory], read.start, read.stop, *said)

    def is_late(self, now: float) -> bool:
        """Whether it exceeds the time of silence or the total timeout."""
        read = self.read
        if now - self.since >= read.remote.patience_s(read.timeout):
            return True
        return read.timeout.total_s is not None and now - self.sent >= read.timeout.total_s
