"""Plain requests over connections that are kept: what is left of the engine where nothing is out of the ordinary.

A lane has a connection and sends one piece of a read after the other over it. As soon as anything is not as it nearly
always is (another status, a head of another kind, a broken connection, a silence), the piece and its connection become
a `Part`, which knows what to do, with every byte that has come.
"""

import ssl
import time
from typing import Protocol, TypeAlias

from rangeio.http.address import Address
from rangeio.http.exchange import SCRATCH, Cut
from rangeio.http.pace import MEASURED
from rangeio.http.plain import Plain
from rangeio.http.reads import Read
from rangeio.http.remote import Remote
from rangeio.http.wire import Wire
from rangeio.traffic import REQUESTS

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_END = b"\r\n\r\n"
_RECEIVES_PER_TURN = 16


Expected: TypeAlias = tuple[bytes, int, bytes]
"""See `Plain.expect`."""
Brought: TypeAlias = tuple[int, Expected, memoryview | None]
"""What an exchange has: so many bytes, where such a head was expected, and this memory was given for the body."""


def request_for(remote: Remote, plain: Plain, target: Address, wire: Wire, at: int, stop: int) -> bytes:
    """The bytes to send for a piece."""
    return b"%b%d-%d%b" % (remote.ranged(target, wire.absolute), at, stop - 1, plain.suffix)


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
        "_request",
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
        """Ask for a piece of an object whose `plain` is known. Over a connection that waits, `readable` does that."""
        plain, wire, target = read.remote.plain, self.wire, read.remote.target
        assert plain is not None
        self.begun(read, plain, target, at, stop)
        self.since = self.sent = time.monotonic()
        if target.origin != wire.origin:  # another thread was told so since the connection was taken
            self._way.strayed(self, ConnectionError("the object is elsewhere now"))
            return
        REQUESTS.add()
        request = request_for(read.remote, plain, target, wire, at, stop)
        if wire.waits:
            self._request = request
            return
        try:
            wire.send(request)
        except OSError as error:
            self._way.strayed(self, error)

    def begun(self, read: Read, plain: Plain, target: Address, at: int, stop: int) -> None:
        """It was asked for, and nothing has come."""
        self.read, self._plain, self.target, self.at, self.stop = read, plain, target, at, stop
        self._memory, self._left = None, stop - at
        self._request, self.block, self.started = b"", b"", False

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

    def readable(self, brought: "Brought | None" = None) -> None:
        """Something has come, or, over a connection that blocks, may come. brought: it was received, and is this."""
        wire = self.wire
        try:
            if self._memory is None and not (self._came(*brought) if brought else self._head(wire)):
                return
            receive, turns = (
                wire.receive,
                1 if wire.waits else _RECEIVES_PER_TURN,
            )  # it is looked at the time in between
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
                if turns <= 0 and not wire.holds_some():
                    return
        except WOULD_BLOCK:
            return
        except (OSError, Cut, MemoryError) as error:
            self._way.strayed(self, error)
            return
        if wire.holds_some():  # more than was asked for
            self._way.strayed(self, None)
            return
        self._memory = None
        wire.used = True
        nbytes = self.stop - self.at
        assert self.read is not None
        self.read.filled += nbytes
        if nbytes >= MEASURED:
            wire.pace.took(self.answered - self.sent, self.since - self.answered, nbytes)
        self._way.arrived(self)

    def _head(self, wire: Wire) -> bool:
        """Receive the head. Once it is accepted, `_memory` is where the rest of the body belongs; whether some of that
        may be there already.
        """
        plain, read, at, stop = self._plain, self.read, self.at, self.stop
        assert plain is not None
        assert read is not None
        expected = None if self.block else plain.expect(at, stop)
        if expected is None:
            return self._unexpected(self.block + self._receive(wire))
        request, self._request = self._request, b""
        body = read.piece(at, stop) if stop - at < MEASURED else None
        count = wire.exchange(request, expected[1], expected[2], body)
        return self._came(count, expected, body)

    def _came(self, count: int, expected: Expected, body: memoryview | None) -> bool:
        """As `_head`, of what an exchange has brought."""
        head, length, _ = expected
        if not count:
            raise Cut
        self.since, self.started = time.monotonic(), True
        wire, read, beyond = self.wire, self.read, count - length
        if not 0 <= beyond <= self._left or length != len(head) or not wire.space.startswith(head):
            block = bytes(wire.scratch[: min(count, length)])
            if beyond <= 0 or (beyond <= self._left and block.find(_END) + len(_END) == length):
                return self._unexpected(block, max(beyond, 0))
            assert body is not None
            spare = wire.space[length : length + 1] if beyond > len(body) else b""
            return self._unexpected(block + bytes(body[:beyond]) + spare)
        self.block, self.answered = head, self.since
        self._left -= beyond
        if body is None:
            assert read is not None
            body = read.piece(self.at, self.stop)
        self._memory = body[beyond:] if self._left else body
        return not self._left or not beyond or wire.tls

    def _receive(self, wire: Wire) -> bytes:
        """A head of which nothing is known, or the rest of it."""
        request, self._request = self._request, b""
        count = wire.exchange(request, SCRATCH - len(self.block), b"", None)
        if not count:
            raise Cut
        self.since, self.started = time.monotonic(), True
        return bytes(wire.scratch[:count])

    def _unexpected(self, block: bytes, placed: int = 0) -> bool:
        """As `_head`, of bytes that do not begin with the head expected. What of them belongs to the body is copied.
        placed: so many that follow `block` are where they belong.
        """
        plain, read, wire, at, stop = self._plain, self.read, self.wire, self.at, self.stop
        assert plain is not None
        assert read is not None
        self.block = block
        end = block.find(_END)
        over = len(block) - end - len(_END)
        if end < 0 and len(block) < SCRATCH:
            return wire.holds_some() and self._head(wire)
        if end < 0 or over + placed > self._left or not plain.accepts(block[:end], at, stop):
            if placed:
                self.block += bytes(read.piece(at, stop)[:placed])
            self._way.strayed(self, None)
            return False
        self.answered = self.since
        memory = read.piece(at, stop)
        if over:
            memory[:over] = block[-over:]
            self.block = block[:-over]
        self._left -= over + placed
        self._memory = memory[over + placed :]
        return True


def plain_for(read: Read, most: int) -> Plain | None:
    """What the reply will look like, if nothing unusual is to be expected of a read of at most so many bytes. Its end
    is set to the object's.
    """
    remote = read.remote
    plain = remote.plain
    if plain is None or remote.kept is not None or remote.access.credentials.stale:
        return None
    if read.stop > plain.size:
        read.end_at(plain.size)
    return plain if 0 < read.stop - read.start <= most else None
