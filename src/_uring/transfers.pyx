"""Async reads of a steady state (`steady`), on an event loop.

One epoll watches all connections with a read in flight, and the loop watches that epoll. So one callback serves all
connections, and uvloop, asyncio and trio need no separate code. A connection is watched for one event at a time
(EPOLLONESHOT), so it need not be removed before it becomes idle and available to other reads.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ENOENT, errno
from libc.stdint cimport int64_t
from posix.unistd cimport close

from _uring.connections cimport Connection
from _uring.kernel cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLONESHOT,
    MSG_DONTWAIT,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
)
from _uring.memory cimport Buffer
from _uring.process cimport fork_count, monotonic_ns
from _uring.steady cimport SteadyReads
from _uring.transfer cimport DONE, WAITING, begin, receive, unfinished

import os

cdef enum:
    EVENTS = 64


cdef char *address_of(view) except? NULL:
    """The address of a memoryview's memory, valid as long as the memoryview lives.

    We keep no export. If a memoryview and an export of it are in one reference cycle, the garbage collector clears the
    memoryview anyway, and its memory is gone when the export is released (CPython 3.11, memory_clear).
    """
    cdef Py_buffer memory
    PyObject_GetBuffer(view, &memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
    PyBuffer_Release(&memory)
    return <char *>memory.buf


cdef class Awaited:
    """One range in flight. token: given by the caller, returned with the result."""

    cdef object hand_over(self):
        connection, self.connection = self.connection, None
        destination, self.destination = self.destination, None
        return unfinished(&self.transfer, connection, destination)


cdef class LoopTransfers:
    """See `LoopTransfers` in records.py. For one thread."""

    def __cinit__(self):
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.forks, self.slots, self.free = fork_count, [], []

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)

    def __len__(self):
        return len(self.slots) - len(self.free)

    def fileno(self):
        return self.epoll

    @property
    def inherited(self):
        return self.forks != fork_count

    def start(self, SteadyReads steady not None, int64_t start, int64_t count, into, token):
        """See records.py."""
        cdef Awaited read
        cdef Connection connection
        cdef Buffer buffer
        cdef char *place
        count = min(count, steady.size - start)
        if not steady.serves(start, count):
            return None
        connection = steady.connection()
        if connection is None:
            return None
        read = Awaited.__new__(Awaited)
        read.connection, read.steady, read.token, read.slot = connection, steady, token, -1
        try:
            if into is None:
                buffer = steady.memory.allocate(count)
                read.destination, place = buffer, buffer.data
            else:
                read.is_into, read.destination, place = True, into, address_of(into)
            steady.asked()
            if not begin(&read.transfer, &steady.request.request, connection, start, count, place):
                return read.hand_over()
            self.watch(read)
        except OSError:  # no more connections can be watched
            return read.hand_over()
        except BaseException:
            connection.close()
            raise
        return read

    cdef int watch(self, Awaited read) except -1:
        """Watch its connection for one event."""
        cdef epoll_event event
        if read.slot < 0:
            if self.free:
                read.slot = self.free.pop()
                self.slots[read.slot] = read
            else:
                read.slot = len(self.slots)
                self.slots.append(read)
        event.events, event.data.u32 = EPOLLIN | EPOLLONESHOT, <unsigned int>read.slot
        # epoll may already know the connection, from an earlier read on it.
        if epoll_ctl(self.epoll, EPOLL_CTL_MOD, read.transfer.fd, &event) == 0:
            return 0
        if errno != ENOENT or epoll_ctl(self.epoll, EPOLL_CTL_ADD, read.transfer.fd, &event) < 0:
            error = errno
            self.remove(read)
            raise OSError(error, os.strerror(error))
        return 0

    cdef int remove(self, Awaited read) except -1:
        self.slots[read.slot] = None
        self.free.append(read.slot)
        read.slot = -1
        return 0

    def poll(self):
        """See records.py."""
        cdef epoll_event[EVENTS] events
        cdef Awaited read
        cdef int i, count = epoll_wait(self.epoll, events, EVENTS, 0)
        cdef list landed = []
        for i in range(count):
            read = self.slots[events[i].data.u32]
            if read is None:
                continue
            try:
                result = self.received(read)
            except Exception as error:  # an unexpected error fails this read only
                self.cancel(read)
                result = error
            if result is not None:
                landed.append((read.token, result))
        return landed

    cdef object received(self, Awaited read):
        """Receive what has arrived. The result of the read, or None if it is not complete."""
        cdef int found = receive(&read.transfer, MSG_DONTWAIT)
        if found == WAITING:
            try:
                self.watch(read)
                return None
            except OSError:
                return read.hand_over()
        self.remove(read)
        return self.landed(read) if found == DONE else self.hand_over(read)

    cdef object landed(self, Awaited read):
        """Finish a complete read. The Buffer, or the number of bytes."""
        connection, destination = read.connection, read.destination
        read.steady.account(connection, &read.transfer)
        read.connection = read.destination = None
        read.steady.give(connection, read.transfer.surplus)
        return read.transfer.length if read.is_into else destination

    def hand_over(self, Awaited read not None):
        """Stop watching the read and return its state for the engine."""
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, read.transfer.fd, NULL)
        if read.slot >= 0:
            self.remove(read)
        return read.hand_over()

    def late(self):
        """See records.py."""
        cdef Awaited read
        cdef int64_t now = monotonic_ns()
        cdef list found = []
        for read in self.under_way():
            if now - read.transfer.since_ns >= read.steady.tick_ns or 0 <= read.steady.total_ns <= now - read.transfer.sent_ns:
                found.append(read)
        return found

    def under_way(self):
        return [read for read in self.slots if read is not None]

    def cancel(self, Awaited read not None):
        """See records.py."""
        if read.slot >= 0:
            self.remove(read)
        connection, read.connection, read.destination = read.connection, None, None
        if connection is not None:
            connection.close()
