"""Async reads of a steady state (`steady`), on an event loop, from the call of a Reader to its result.

One epoll watches all connections with a read in flight, and the loop watches that epoll. So one callback serves all
connections, and uvloop, asyncio and trio need no separate code. A connection is watched for one event at a time
(EPOLLONESHOT), so it need not be removed before it becomes idle and available to other reads.

The source (`Reader` of records.py) handles responses that are not plain, and reads that cannot be started here.
`rangeio.http.awaited_reads` does the same over TLS, and without the core.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from libc.errno cimport ENOENT, errno
from libc.stdint cimport INT64_MAX, int64_t
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
import weakref
from functools import partial

from _uring.errors import as_failure
from _uring.event_loops import bind, current_key
from _uring.waiters import tell

cdef enum:
    EVENTS = 64

# Without reads for so long, a loop watches no longer.
KEPT_S = 1.0

# By the id of what `current_key` gives, as weak references: a loop holds its own by its watch, and nothing else does.
cdef dict places = {}


cdef int64_t kept_ns() except -1:
    return <int64_t>(<double>KEPT_S * 1e9)


cdef LoopTransfers running():
    """Those of the loop that runs, made anew if it has none; None if none can be made: who reads otherwise says why."""
    cdef LoopTransfers place = None
    key = current_key()
    known = places.get(id(key))
    if known is not None:
        place = known()
    if place is None or place.ended or place.key is not key or place.forks != fork_count:
        try:
            place = LoopTransfers(key)
        except Exception:
            return None
        for other in [other for other, known in places.items() if known() is None]:
            places.pop(other, None)
        places[id(key)] = weakref.ref(place)
    return place


async def awaited(SteadyReads steady not None, int64_t start, int64_t count, into, reader, bint again):
    """What comes of a read: a Buffer, or the bytes read into memory. Where it cannot be begun here, what the reader makes
    of it `again`, or None.
    """
    cdef LoopTransfers place = running()
    cdef Awaited read = None
    if place is not None:
        read = place.send_for(steady, start, count, into, None, reader)
    if read is None:
        return await reader.read_soon(start, count, into) if again else None
    try:
        return await place.binding.wait(read.waiter)
    except BaseException:
        place.cancel(read)  # if it was the task that was cancelled
        raise


def awaited_at(SteadyReads steady not None, offset, limit, reader, /):
    """The same for the arguments of a `read_at`; None at once if it cannot be begun."""
    cdef long long start, count
    if not PyLong_CheckExact(offset) or not PyLong_CheckExact(limit):
        return None
    try:
        start, count = PyLong_AsLongLong(offset), PyLong_AsLongLong(limit)
    except OverflowError:
        return None
    if not steady.serves(start, min(count, steady.size - start)):
        return None
    return awaited(steady, start, count, None, reader, True)


def begin_awaited(SteadyReads steady not None, int64_t start, int64_t count, waiter, reader, /):
    """Begin a read of which `waiter` is told; whether that could be done."""
    cdef LoopTransfers place = running()
    return place is not None and place.send_for(steady, start, count, None, waiter, reader) is not None


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
    """One range in flight, and its waiter. adopted: what continues it, if the response was not plain."""

    cdef int64_t deadline(self) noexcept:
        """Until when something has to come, in all too."""
        cdef int64_t due = self.transfer.since_ns + self.steady.tick_ns
        if self.steady.total_ns >= 0:
            due = min(due, self.transfer.sent_ns + self.steady.total_ns)
        return due

    cdef object as_it_is(self):
        """An Unfinished; or the exception, if there is no memory for it."""
        try:
            found = unfinished(&self.transfer, self.connection, self.destination)
        except Exception as error:
            self.connection.close()
            found = error
        self.connection = self.destination = None
        return found

    cdef int otherwise(self, found) except -1:
        """Have the reader see to an Unfinished or an exception. Exceptions of the reader end this read, and no other."""
        cdef int64_t start = self.transfer.start, count = self.transfer.length
        try:
            self.adopted = self.reader.otherwise(found, start, start + count, self.into, self.waiter, self.place.key)
        except Exception as error:
            if isinstance(found, Exception):  # it cannot even tell of one
                tell(self.waiter, error=error if isinstance(error, MemoryError) else as_failure(error, "", start, count))
            else:
                found.connection.close()
                self.otherwise(error)
        return 0


cdef class LoopTransfers:
    """The reads in flight on one loop, for its own thread. key: the `current_key` of the loop."""

    def __cinit__(self, *_):
        self.epoll = -1

    def __init__(self, key, /):
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.forks, self.slots, self.free = fork_count, [], []
        self.due_ns, self.used_ns = INT64_MAX, monotonic_ns()
        self.key, self.binding = key, bind(key)
        self.binding.watch(self.epoll, self.poll, gone=self.end)
        self.look_by(self.used_ns + kept_ns())

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)

    def __len__(self):
        return len(self.slots) - len(self.free)

    cdef Awaited send_for(self, SteadyReads steady, int64_t start, int64_t count, into, waiter, reader):
        """Send for a range, of which `waiter`, or a new one, is told; None where that cannot be done now."""
        cdef Awaited read
        cdef Connection connection
        cdef Buffer buffer
        cdef char *place
        cdef bint sent
        count = min(count, steady.size - start)
        if not steady.serves(start, count):
            return None
        connection = steady.connection()
        if connection is None:
            return None
        read = Awaited.__new__(Awaited)
        read.place, read.steady, read.connection, read.reader, read.slot = self, steady, connection, reader, -1
        read.transfer.start, read.transfer.length = start, count
        try:
            read.waiter = self.binding.waiter(None) if waiter is None else waiter
            if into is None:
                buffer = steady.memory.allocate(count)
                read.destination, place = buffer, buffer.data
            else:
                read.into = read.destination = into
                place = address_of(into)
            steady.asked()
            sent = begin(&read.transfer, &steady.request.request, connection, start, count, place) and self.watch(read)
            self.used_ns = read.transfer.sent_ns
            self.look_by(read.deadline())
        except BaseException as error:
            self.cancel(read)
            if read.waiter is None or not isinstance(error, Exception):
                raise
            read.otherwise(error)
            return read
        if not sent:
            read.otherwise(read.as_it_is())
        return read

    cdef bint watch(self, Awaited read) except -1:
        """Watch its connection for one event; False if no more can be watched."""
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
            return True
        if errno == ENOENT and epoll_ctl(self.epoll, EPOLL_CTL_ADD, read.transfer.fd, &event) == 0:
            return True
        self.remove(read)
        return False

    cdef int remove(self, Awaited read) except -1:
        self.slots[read.slot] = None
        self.free.append(read.slot)
        read.slot = -1
        return 0

    def poll(self):
        """Take what has come. The loop calls this when there is something."""
        cdef epoll_event[EVENTS] events
        cdef Awaited read
        cdef int i, count = epoll_wait(self.epoll, events, EVENTS, 0)
        for i in range(count):
            read = self.slots[events[i].data.u32]
            if read is not None:
                self.see_to(read, False)

    cdef int see_to(self, Awaited read, bint late) except -1:
        """Take what has come of a read, or hand it over. An exception is that read's error, and no other's."""
        try:
            self.hand_over(read) if late else self.take(read)
        except BaseException as error:
            self.cancel(read)
            if isinstance(error, Exception):
                read.otherwise(error)
            elif read.waiter.done():
                raise
            else:  # an interruption is for the program: the task raises it
                read.waiter.set_exception(error)
        return 0

    cdef int take(self, Awaited read) except -1:
        """Receive what has arrived; resolve the waiter if the read is complete."""
        cdef int found = receive(&read.transfer, MSG_DONTWAIT)
        if found == WAITING and self.watch(read):
            return 0
        if read.slot >= 0:
            self.remove(read)
        if found == DONE:
            return self.landed(read)
        return read.otherwise(read.as_it_is())

    cdef int hand_over(self, Awaited read) except -1:
        """Have the reader continue it as it is."""
        if self.forks == fork_count:  # else it is the parent's epoll
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, read.transfer.fd, NULL)
        self.remove(read)
        return read.otherwise(read.as_it_is())

    cdef int landed(self, Awaited read) except -1:
        """Resolve the waiter of a complete read with the Buffer, or the number of bytes."""
        connection, destination = read.connection, read.destination
        read.steady.account(connection, &read.transfer)
        read.connection = read.destination = None
        read.steady.give(connection, read.transfer.surplus)
        if not read.waiter.done():
            read.waiter.set_result(destination if read.into is None else read.transfer.length)
        return 0

    cdef int look_by(self, int64_t due_ns) except -1:
        """Check for late reads at that time, or earlier."""
        if due_ns < self.due_ns:
            self.due_ns = due_ns
            # Loops have coarser clocks: a call that is too early would repeat.
            self.binding.later(max(0.001, (due_ns - monotonic_ns()) / 1e9), partial(self.look, due_ns))
        return 0

    def look(self, int64_t due_ns, /):
        """Hand over what was silent for long, or takes too long in all."""
        cdef Awaited read
        cdef int64_t now = monotonic_ns(), next_ns = INT64_MAX
        if due_ns != self.due_ns or self.ended:
            return  # another look takes its place
        self.due_ns = INT64_MAX
        for read in self.under_way():
            if read.deadline() > now:
                next_ns = min(next_ns, read.deadline())
                continue
            self.see_to(read, True)
        if next_ns == INT64_MAX:
            next_ns = self.used_ns + kept_ns()
        if next_ns > now:
            self.look_by(next_ns)
        else:  # for good
            self.binding.unwatch(self.epoll)
            self.end()

    cdef list under_way(self):
        return [read for read in self.slots if read is not None]

    cdef int cancel(self, Awaited read) except -1:
        """Nobody waits for it any more."""
        if read.slot >= 0:
            self.remove(read)
        connection, read.connection, read.destination = read.connection, None, None
        adopted, read.adopted = read.adopted, None
        if connection is not None:
            connection.close()
        if adopted is not None:
            adopted.cancel()
        return 0

    def end(self):
        """The loop watches no longer: it has gone, or there is nothing to watch. A second call does nothing."""
        if self.ended:
            return
        self.ended = True
        if self.forks == fork_count:  # else what is under way is the parent's
            for read in self.under_way():
                self.cancel(read)
