"""One open connection, and how requests and plain replies go over it."""

import errno
import os
import select
import socket
import ssl
import struct
import weakref
from collections.abc import Callable

from _uring import exchange, is_quiet
from rangeio.http.address import Origin
from rangeio.http.exchange import SCRATCH
from rangeio.http.pace import Pace

_NOTHING = memoryview(bytearray())
# Windows has no MSG_DONTWAIT; sockets there do not block (`Wire.block`).
_LOOK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


class Wire:
    """One open connection. It belongs to one read at a time, or is idle in the pool."""

    __slots__ = (
        "__weakref__",
        "_close",
        "absolute",
        "fd",
        "idle_since",
        "origin",
        "pace",
        "scratch",
        "sock",
        "space",
        "tick_s",
        "tls",
        "used",
    )

    def __init__(
        self,
        sock: socket.socket,
        origin: Origin,
        absolute: bool,
        pace: Pace,
        closed: Callable[[], None],
    ) -> None:
        """absolute: requests name the whole URL, as a proxy wants it. pace: that of the origin. closed: called once,
        when it is.
        """
        sock.setblocking(False)
        self.tick_s: float | None = None
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.origin = origin
        self.absolute = absolute
        self.pace = pace
        self.space = bytearray(SCRATCH + 1)
        self.scratch = memoryview(self.space)[:SCRATCH]
        self.used = False  # whether a reply has come over it
        self.idle_since = 0.0
        # Closes the socket also where the loop that held it ends first, whatever the order of collection.
        self._close = weakref.finalize(self, _close, sock, closed)
        _ALL.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it was not ended here."""
        return self.sock.fileno() >= 0

    def close(self) -> None:
        """End it. A second call does nothing."""
        self._close()

    def block(self, tick_s: float | None) -> None:
        """Have receiving wait, but for so long at most; or not at all, with None. Nothing to do if it is so already."""
        if tick_s != self.tick_s:
            self.tick_s = tick_s
            # OpenSSL goes on when the socket's own limit has passed, and Python begins to wait anew after each signal.
            if self.tls or exchange is None:
                self.sock.settimeout(tick_s or 0.0)
                return
            self.sock.setblocking(tick_s is not None)
            if tick_s is not None:
                limit = struct.pack("ll", int(tick_s), int(tick_s % 1 * 1e6))  # struct timeval
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    @property
    def waits(self) -> bool:
        """Whether receiving does."""
        return self.tick_s is not None

    def send(self, request: bytes) -> None:
        """An idle connection takes all of a small request. What is one doing that does not?"""
        if exchange is not None and not self.tls:
            exchange(self.sock.fileno(), request, _NOTHING, b"", None, False)
        elif self.sock.send(request) < len(request):
            raise ConnectionError("the request could not be sent")

    def exchange(self, request: bytes, head_length: int, announced: bytes, body: memoryview | None) -> int:
        """Send what is to be sent, and receive a head of just this length and, where it can be done at once, its body.

        Returns how many bytes have come in all, in `scratch` first, then in `body`; one more, if something follows that
        nobody asked for: it is after the head in `space`. 0 at the end of the connection.
        announced: what the head of an expected reply holds. Raises as a socket does.
        """
        if exchange is not None and not self.tls:
            head = memoryview(self.space)[: head_length + (body is not None)]
            return exchange(self.sock.fileno(), request, head, announced, body, self.tick_s is not None)
        if request:
            self.send(request)
        if body is None or self.tls or not hasattr(self.sock, "recvmsg_into"):
            return self.receive(self.scratch[:head_length])
        spare = memoryview(self.space)[head_length : head_length + 1]
        return self.sock.recvmsg_into([self.scratch[:head_length], body, spare])[0]

    def receive(self, memory: memoryview) -> int:
        """As a socket does; BlockingIOError too where it has waited for nothing, or a signal has ended that."""
        if self.tick_s is not None and exchange is not None and not self.tls:
            return exchange(self.sock.fileno(), b"", memory, b"", None, True)
        try:
            return self.sock.recv_into(memory)
        except TimeoutError as error:
            if error.errno is not None:  # ETIMEDOUT: TCP has given the connection up
                raise
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def holds_some(self) -> bool:
        """Whether TLS has bytes that were received and not taken, of which no selector tells."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def has_something(self) -> bool:
        """Whether something has come that nobody has received yet. One system call."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def is_quiet(self) -> bool:
        """Whether the other side has neither closed it nor sent what nobody asked for, which would be taken for the
        response to the next request. One system call; under TLS another one where there is something to be looked at.
        """
        if is_quiet is not None and is_quiet(self.sock.fileno()):
            return not self.holds_some()
        if is_quiet is not None and not self.tls:
            return False
        waits = self.tick_s
        self.block(None)  # Python waits for its own time limit, whatever the flags say
        try:
            # What has come over TLS may be no data: tickets of the session.
            self.sock.recv(1, *(() if self.tls else (_LOOK,)))
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        finally:
            self.block(waits)
        return False


_ALL: "weakref.WeakSet[Wire]" = weakref.WeakSet()


def cut_off_all() -> None:
    """In a forked child: connections are the parent's. Where a signal's handler has forked amid a read, both go on with
    it: here it finds its connection at its end, and opens another one.
    """
    theirs, ended = socket.socketpair()
    theirs.close()
    for wire in list(_ALL):
        if wire.is_open:
            os.dup2(ended.fileno(), wire.sock.fileno(), inheritable=False)
    ended.close()


def _close(sock: socket.socket, closed: Callable[[], None]) -> None:
    sock.close()
    closed()
