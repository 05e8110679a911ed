"""Connected TCP sockets, and a stack of idle ones.

The sockets block, up to SO_RCVTIMEO. Code that must not block passes MSG_DONTWAIT in each call. Everything here is called with
the GIL held and does not release it, so it needs no lock.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, errno

from _uring.kernel cimport (
    MSG_DONTWAIT,
    MSG_PEEK,
    SO_RCVTIMEO,
    SOL_SOCKET,
    setsockopt,
    socket_receive,
    timeval,
)
from _uring.process cimport monotonic_ns

import os

from _uring.records import MOST_IDLE_S


cdef class Connection:
    """See `Connection` in records.py."""

    def __cinit__(self, *_, **__):
        self.fd = -1
        self.space = bytearray(HEAD_ROOM + 1)
        PyObject_GetBuffer(self.space, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)  # the export prevents resizing
        self.head = <char *>self.view.buf

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def attach(self, int fd):
        self.fd = fd

    def has_nothing(self):
        return self.brings_nothing()

    @property
    def idle_s(self):
        return (monotonic_ns() - self.idle_ns) / 1e9

    cdef bint brings_nothing(self) noexcept nogil:
        """Whether it is open and no bytes have arrived. Bytes that arrive before a request are not its response (RFC 9112 9.2)."""
        cdef char byte
        return socket_receive(self.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and (errno == EAGAIN or errno == EINTR)

    cdef int wait_for(self, int64_t ns) except -1:
        """Set the timeout of blocking receives (SO_RCVTIMEO), if it differs from the current one."""
        cdef timeval limit
        if ns == self.wait_ns:
            return 0
        limit.tv_sec, limit.tv_usec = ns // 1000000000, ns % 1000000000 // 1000
        if setsockopt(self.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0:
            raise OSError(errno, os.strerror(errno))
        self.wait_ns = ns
        return 0


cdef int64_t MOST_IDLE_NS = <int64_t>(MOST_IDLE_S * 1e9)


cdef class IdleConnections:
    """See `IdleConnections` in records.py."""

    def __cinit__(self):
        self.connections = []

    def __len__(self):
        return len(self.connections)

    cdef Connection take_quiet(self, bint absolute):
        """The most recently used connection on which no bytes have arrived; others are closed. None if there is none.

        absolute: whether its requests name the whole URL. None if the most recently used one is of the other kind.
        """
        cdef Connection connection
        while self.connections:
            connection = self.connections.pop()
            if connection.absolute != absolute:
                self.connections.append(connection)
                return None
            if connection.brings_nothing() and monotonic_ns() - connection.idle_ns < MOST_IDLE_NS:
                return connection
            connection.close()
        return None

    cdef bint put(self, Connection connection) except -1:
        """Keep it as idle. False if others wait for it, and it must go to them."""
        connection.idle_ns = monotonic_ns()
        if self.wanted:
            return False
        self.connections.append(connection)
        return True

    def keep(self, Connection connection not None):
        connection.idle_ns = monotonic_ns()
        self.connections.append(connection)

    def take(self):
        return self.connections.pop() if self.connections else None

    def take_oldest(self):
        return self.connections.pop(0) if self.connections else None

    def longest_s(self):
        cdef Connection connection
        if not self.connections:
            return 0.0
        connection = self.connections[0]
        return connection.idle_s

    def peek(self):
        return self.connections[len(self.connections) - 1] if self.connections else None

    def clear(self):
        cdef list all = self.connections
        self.connections = []
        return all
