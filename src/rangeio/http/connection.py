"""One open connection, for sending requests and receiving responses."""

import errno
import os
import select
import socket
import ssl
import weakref
from collections.abc import Callable

import _uring
from rangeio.http.latency import Latency
from rangeio.http.urls import Origin

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Raised if nothing can be received, or sent, without waiting."""

RECEIVES_PER_TURN = 16
"""Maximum receives from one connection before others are served."""

# Windows does not have it. There, and with TLS, which accepts no flags, the socket itself is non-blocking.
_NOW = getattr(socket, "MSG_DONTWAIT", 0)
# Whether the core can check a socket, whatever its protocol and blocking mode.
_SEES_ALL = hasattr(_uring.Connection, "has_nothing")


class Connection(_uring.Connection):
    """One open connection. It belongs to one attempt at a time, or is idle in the pool."""

    __slots__ = ("__weakref__", "_close", "_flags", "_waits_s", "latency", "origin", "scratch", "sock", "tls")

    def __init__(
        self,
        sock: socket.socket,
        origin: Origin,
        absolute: bool,
        latency: Latency,
        closed: Callable[[], None],
    ) -> None:
        """absolute: requests contain the whole URL, as a proxy requires. latency: of the origin. closed: called once,
        when the connection is closed.
        """
        super().__init__()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self._flags = 0 if self.tls else _NOW
        sock.setblocking(bool(self._flags))
        self._waits_s: float | None = None
        self.sock = sock
        self.attach(sock.fileno())
        self.origin = origin
        self.absolute = absolute
        self.latency = latency
        self.scratch = memoryview(self.space)[:-1]
        # Closes the socket even if the event loop that references it ends first, in any order of collection.
        self._close = weakref.finalize(self, _close, sock, closed)
        _ALL.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed by this side."""
        return self.sock.fileno() >= 0

    def close(self) -> None:
        """Close it. A second call does nothing."""
        self._close()

    def send(self, data: "bytes | memoryview") -> int:
        """Send as much as possible without waiting; WOULD_BLOCK if nothing."""
        return self.sock.send(data, self._flags)

    def send_all(self, request: bytes) -> None:
        """Send a small request. An idle connection accepts all of it; ConnectionError if not, because it is broken."""
        if self.send(request) < len(request):
            raise ConnectionError("the request could not be sent")

    def receive(self, memory: memoryview) -> int:
        """Receive without waiting; WOULD_BLOCK if nothing has arrived."""
        return self.sock.recv_into(memory, 0, self._flags)

    def wait(self, memory: memoryview, seconds: float) -> int:
        """Receive, waiting at most `seconds`, even with signals."""
        if self._waits_s != seconds:
            self._waits_s = seconds
            self.sock.settimeout(seconds)
        try:
            return self.sock.recv_into(memory)
        except TimeoutError as error:
            if error.errno is not None:  # ETIMEDOUT: TCP has dropped the connection
                raise
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def stop_waiting(self) -> None:
        """Restore the blocking mode: call after `wait`, before `receive`."""
        if self._waits_s is not None:
            self._waits_s = None
            self.sock.setblocking(bool(self._flags))

    def holds_some(self) -> bool:
        """Whether TLS holds received bytes that were not read, which no selector reports."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def has_something(self) -> bool:
        """Whether bytes have arrived that were not received yet. One system call."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def is_quiet(self) -> bool:
        """Whether the server has neither closed it nor sent unsolicited bytes, which would be taken for the response to
        the next request (RFC 9112 sections 6.3 and 9.2). One system call; with TLS a second one if bytes have arrived.
        """
        if _SEES_ALL:
            if self.has_nothing():
                return not self.holds_some()
            if not self.tls:
                return False
        self.stop_waiting()
        try:
            # Bytes that arrive over TLS may not be data but session tickets.
            self.sock.recv(1, *(() if self.tls else (socket.MSG_PEEK | self._flags,)))
        except WOULD_BLOCK:
            return True
        except OSError:
            pass
        return False


_ALL: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def cut_off_all() -> None:
    """In a forked child: disconnect from the parent's connections. If a signal handler forked during a read, both
    processes continue the read: here it finds its connection closed, and opens another one.
    """
    theirs, ended = socket.socketpair()
    theirs.close()
    for connection in list(_ALL):
        if connection.is_open:
            os.dup2(ended.fileno(), connection.sock.fileno(), inheritable=False)
    ended.close()


def _close(sock: socket.socket, closed: Callable[[], None]) -> None:
    sock.close()
    closed()
