"""Plain requests over connections that are kept: what is left of the engine where nothing is out of the ordinary.

A lane has a connection and sends one piece of a read after the other over it. As soon as anything is not as it nearly
always is (another status, a head of another kind, a broken connection, a silence), the piece and its connection become
a `Part`, which knows what to do, with every byte that has come.
"""

import ssl
import time
from typing import Protocol

from rangeio.http.exchange import Cut
from rangeio.http.pace import MEASURED
from rangeio.http.plain import Plain
from rangeio.http.pool import Pool, Wire
from rangeio.http.reads import Read
from rangeio.http.remote import Remote
from rangeio.policy import RETRIES
from rangeio.traffic import REQUESTS

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
# A small body comes with the head, and is copied; of a large one nothing but what lies beside the head.
_SMALL = 8192
# By which the numbers in a head may be longer than they were in another.
_DIGITS = 64
_RECEIVES_PER_TURN = 16


class Way(Protocol):
    """Who has sent a piece along a lane."""

    def arrived(self, lane: "Lane") -> None:
        """All bytes of the piece are in place."""

    def strayed(self, lane: "Lane", error: BaseException | None) -> None:
        """The piece is not plain, or the connection broke. See `Lane.begun`, `block` and `filled`."""


class Lane:
    """A connection, and the piece `at` to `stop` of `read` that is under way on it.

    block: what came of a reply that is not plain, else its head with the empty line. filled: bytes of the body that are
    in their place. started: whether anything has come. sent, answered: when the request was, and when its head came.
    since: when something last came, or was sent.
    """

    __slots__ = (
        "_left",
        "_memory",
        "_plain",
        "_way",
        "answered",
        "at",
        "block",
        "read",
        "sent",
        "since",
        "started",
        "stop",
        "target",
        "wire",
    )

    def __init__(self, way: Way, wire: Wire) -> None:
        self._way = way
        self.wire = wire
        self.read: Read | None = None
        self._plain: Plain | None = None
        self._memory: memoryview | None = None
        self.started = False

    def serves(self, remote: Remote) -> bool:
        """Whether a piece of an object may be asked for, as far as that may change while others are."""
        return not remote.access.credentials.stale and remote.target.origin == self.wire.origin

    def begin(self, read: Read, at: int, stop: int) -> None:
        """Ask for a piece of an object whose `plain` is known."""
        remote = read.remote
        plain = self._plain = remote.plain
        assert plain is not None
        self.read, self.at, self.stop = read, at, stop
        self._memory, self._left = None, stop - at
        self.block, self.started = b"", False
        self.since = self.sent = time.monotonic()
        target = self.target = remote.target
        if target.origin != self.wire.origin:  # another thread was told so since the connection was taken
            self._way.strayed(self, ConnectionError("the object is elsewhere now"))
            return
        prefix = remote.ranged(target, self.wire.absolute)
        request = b"%b%d-%d%b" % (prefix, at, stop - 1, plain.suffix)
        try:
            sent = self.wire.sock.send(request)
            REQUESTS.add()
        except OSError as error:
            self._way.strayed(self, error)
            return
        if sent < len(request):  # an idle connection takes all of a small request; what is this one doing?
            self._way.strayed(self, ConnectionError("the request could not be sent"))

    @property
    def filled(self) -> int:
        """See the class."""
        return self.stop - self.at - self._left if self._memory is not None else 0

    def let_go(self) -> None:
        """Nobody waits for its piece any more: the memory is somebody else's."""
        self.read = self._memory = None

    def is_late(self, now: float, began: float) -> bool:
        """Whether its piece takes too long in any way; which one it is, its `Part` will say."""
        assert self.read is not None
        timeout = self.read.timeout
        bound = timeout.idle_s if self.started else timeout.first_byte_s
        silent = bound is not None and now - self.since > bound
        hedge_s = self.read.remote.hedge_s
        if hedge_s is not None and not self.started:
            silent = silent or now - self.since > hedge_s
        return silent or (timeout.total_s is not None and now - began > timeout.total_s)

    def readable(self) -> None:
        """Something has come, or, over a connection that blocks, may come."""
        wire = self.wire
        try:
            if self._memory is None and not self._head(wire):
                return
            receive, turns = wire.sock.recv_into, _RECEIVES_PER_TURN
            while self._left:
                memory = self._memory
                assert memory is not None
                count = receive(memory)
                if not count:
                    raise Cut
                self.since = time.monotonic()
                self._left -= count
                turns -= 1
                if not self._left:
                    break
                self._memory = memory[count:]
                if not wire.tls:
                    return
                if turns <= 0 and not wire.sock.pending():  # type: ignore[attr-defined]
                    return
        except _WOULD_BLOCK:
            return
        except (OSError, Cut, MemoryError) as error:
            self._way.strayed(self, error)
            return
        self._memory = None
        wire.used = True
        nbytes = self.stop - self.at
        if nbytes >= MEASURED:
            wire.pace.took(self.answered - self.sent, self.since - self.answered, nbytes)
        self._way.arrived(self)

    def _head(self, wire: Wire) -> bool:
        """Receive the head. Once it is accepted, `_memory` is where the rest of the body belongs; whether some of that
        may be there already.
        """
        plain = self._plain
        assert plain is not None
        scratch, had = wire.scratch, len(self.block)
        whole = had or self._left <= _SMALL or not plain.head_length
        space = scratch[had:] if whole else scratch[: plain.head_length + _DIGITS]
        count = wire.sock.recv_into(space)
        if not count:
            raise Cut
        self.since, self.started = time.monotonic(), True
        block = bytes(scratch[: had + count])
        end = block.find(b"\r\n\r\n")
        self.block = block
        if end < 0 and len(block) < len(scratch):
            # TLS may hold more that no selector tells of.
            return wire.tls and self._head(wire)
        over = len(block) - end - 4
        if end < 0 or over > self._left or not plain.accepts(block[:end], self.at, self.stop):
            self._way.strayed(self, None)
            return False
        read = self.read
        assert read is not None
        self.answered = self.since
        memory = read.room(read.stop)[self.at - read.start : self.stop - read.start]
        if over:
            self.block = block[: end + 4]
            memory[:over] = scratch[end + 4 : end + 4 + over]
            self._left -= over
            memory = memory[over:]
        self._memory = memory
        return not self._left or count == len(space) or wire.tls


def is_plain(read: Read, most: int) -> bool:
    """Whether nothing unusual is to be expected of a read, of at most so many bytes. Its end is set to the object's."""
    remote = read.remote
    plain = remote.plain
    if plain is None or remote.kept is not None or remote.access.credentials.stale:
        return False
    read.end_at(plain.size)
    return 0 < read.stop - read.start <= most


def wire_for(read: Read, pool: Pool, most: int) -> Wire | None:
    """A connection that blocks, for a read that `is_plain`; None unless one is idle, and without TLS."""
    origin = read.remote.target.origin
    if origin.scheme != "http" or not is_plain(read, most):
        return None
    return pool.take(origin, read.tick_s)


class Alone:
    """One piece in the thread that wants it, over a connection that blocks. No selector, no timer, nothing to undo."""

    __slots__ = ("error", "lane", "over")

    def __init__(self) -> None:
        self.over = False
        self.lane: Lane | None = None
        self.error: BaseException | None = None

    def read(self, wire: Wire, read: Read, pool: Pool) -> Lane | None:
        """Have a whole read; None once all of it is in place, else the lane that strayed, and `error`."""
        lane, began = Lane(self, wire), time.monotonic()
        try:
            lane.begin(read, read.start, read.stop)
            while not self.over:
                lane.readable()
                if not self.over and lane.is_late(time.monotonic(), began):
                    self.strayed(lane, None)
        except BaseException:  # Ctrl-C
            pool.drop(wire)
            raise
        if self.lane is None:
            pool.give_back(wire)
            RETRIES.succeeded()
        else:
            wire.block(None)
        return self.lane

    def arrived(self, lane: Lane) -> None:
        """See `Way`."""
        self.over = True

    def strayed(self, lane: Lane, error: BaseException | None) -> None:
        """See `Way`."""
        self.over, self.lane, self.error = True, lane, error
