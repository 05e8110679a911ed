"""One open connection: what requests are sent over, and responses received from."""

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
"""What is raised where nothing can be had, or sent, at once."""

RECEIVES_PER_TURN = 16
"""Receives for one connection before others get their turn."""

# Windows has none. There, and under TLS, which takes no flags, it is the socket that does not wait.
_NOW = getattr(socket, "MSG_DONTWAIT", 0)
# Whether the core looks at a socket, whatever is spoken over it and however it waits.
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
        """absolute: requests name the whole URL, as a proxy wants it. latency: that of the origin. closed: called once,
        when it is.
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

    def send(self, data: "bytes | memoryview") -> int:
        """As much as is taken at once; WOULD_BLOCK if nothing is."""
        return self.sock.send(data, self._flags)

    def send_all(self, request: bytes) -> None:
        """An idle connection takes all of a small request. One that does not is broken: ConnectionError."""
        if self.send(request) < len(request):
            raise ConnectionError("the request could not be sent")

    def receive(self, memory: memoryview) -> int:
        """What can be had at once, as a socket gives it; WOULD_BLOCK if that is nothing."""
        return self.sock.recv_into(memory, 0, self._flags)

    def wait(self, memory: memoryview, seconds: float) -> int:
        """The same, but wait so long at most, signals or not."""
        if self._waits_s != seconds:
            self._waits_s = seconds
            self.sock.settimeout(seconds)
        try:
            return self.sock.recv_into(memory)
        except TimeoutError as error:
            if error.errno is not None:  # ETIMEDOUT: TCP has given the connection up
                raise
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def stop_waiting(self) -> None:
        """After `wait`, before `receive`."""
        if self._waits_s is not None:
            self._waits_s = None
            self.sock.setblocking(bool(self._flags))

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
        response to the next request (RFC 9112 sections 6.3 and 9.2). One system call; under TLS another one where there
        is something to be looked at.
        """
        if _SEES_ALL:
            if self.has_nothing():
                return not self.holds_some()
            if not self.tls:
                return False
        self.stop_waiting()
        try:
            # What has come over TLS may be no data: tickets of the session.
            self.sock.recv(1, *(() if self.tls else (socket.MSG_PEEK | self._flags,)))
        except WOULD_BLOCK:
            return True
        except OSError:
            pass
        return False


_ALL: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def cut_off_all() -> None:
    """In a forked child: connections are the parent's. Where a signal's handler has forked amid a read, both go on with
    it: here it finds its connection at its end, and opens another one.
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
