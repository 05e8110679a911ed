"""The steady state: the version and size of an object are known, and a connection to its server is idle.

A read then sends its request and checks the response here, without creating a Python object other than the Buffer. A response
that is not plain, is late or breaks off is handed over to the HTTP engine as an `Unfinished`, with all bytes received so far.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from libc.errno cimport errno
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from _uring.kernel cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLIN,
    epoll_create1,
    epoll_ctl,
    epoll_event,
)
from _uring.memory cimport Buffer
from _uring.process cimport fork_count, monotonic_ns
from _uring.transfer cimport DONE, UNUSUAL, WAITING, Transfer, begin, receive_all, unfinished
from _uring.transfer_set cimport EVENTS, GONE, IDLE, LOOK, SAMPLES, Slot, next_on, work_on

import os

from _uring.records import MEASURED, REQUEST_ROOM

# How often a batch that never has to wait checks for Ctrl-C. A waiting batch is woken by the signal.
cdef int64_t LOOK_EVERY_NS = 50000000
# How many ranges get memory ahead of their requests. New memory costs more than the read, and taking the GIL for it may cost
# 5 ms while another thread computes.
cdef Py_ssize_t AHEAD = 1024
# Maximum bytes allocated ahead, beyond the ranges that may start before the next check.
cdef int64_t AHEAD_BYTES = 128 << 20


cdef class SteadyReads:
    """See `SteadyReads` in records.py. Thread-safe."""

    def __init__(
        self,
        Engine engine not None,
        IdleConnections idle not None,
        RangeRequest request not None,
        give_back,
        int64_t most,
        bint absolute,
        double good_s,
        timeout,
        asked,
        answered,
        measured,
    ):
        if len(request.before) + len(request.after) > REQUEST_ROOM:
            raise ValueError(f"the text of a request has at most {REQUEST_ROOM} bytes")
        self.engine, self.memory = engine, engine.memory
        self.idle, self.request, self.give_back = idle, request, give_back
        self.asked, self.answered, self.measured = asked, answered, measured
        self.size, self.most, self.absolute = request.expected.known.size, most, absolute
        self.until_ns = monotonic_ns() + <int64_t>(good_s * 1e9)
        tick_s, total_s = timeout
        self.tick_ns = <int64_t>(tick_s * 1e9)
        self.total_ns = -1 if total_s is None else <int64_t>(total_s * 1e9)

    @property
    def good(self):
        return monotonic_ns() <= self.until_ns

    cdef bint serves(self, int64_t start, int64_t count) noexcept:
        return 0 < count <= self.most and 0 <= start < self.size and monotonic_ns() <= self.until_ns

    cdef Connection connection(self):
        """An idle connection; None if there is none, or if others are waiting for one."""
        return None if self.idle.wanted else self.idle.take_quiet(self.absolute)

    def read_at(self, offset, limit):
        """See records.py."""
        cdef long long start, count
        cdef Buffer buffer
        cdef Connection connection
        if not PyLong_CheckExact(offset) or not PyLong_CheckExact(limit):
            return None
        try:
            start, count = PyLong_AsLongLong(offset), PyLong_AsLongLong(limit)
        except OverflowError:
            return None
        if start < 0 or count <= 0 or start >= self.size:
            return None
        count = min(count, self.size - start)
        if not self.serves(start, count):
            return None
        connection = self.connection()
        if connection is None:
            return None
        try:
            buffer = self.memory.allocate(count)
            found = self.ask(connection, start, count, buffer.data, buffer)
        except BaseException:  # Ctrl-C
            connection.close()
            raise
        return buffer if found is None else found

    def read_into(self, view, long long start):
        """See records.py."""
        cdef Py_buffer memory
        cdef int64_t count
        cdef Connection connection
        PyObject_GetBuffer(view, &memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            count = min(memory.len, self.size - start)
            connection = self.connection() if self.serves(start, count) else None
            if connection is None:
                return None
            try:
                found = self.ask(connection, start, count, <char *>memory.buf, view)
            except BaseException:  # Ctrl-C
                connection.close()
                raise
        finally:
            PyBuffer_Release(&memory)
        return count if found is None else found

    cdef object ask(self, Connection connection, int64_t start, int64_t count, char *place, destination):
        """Read one range into `place`. None if it is complete, else an `Unfinished`."""
        cdef Transfer transfer
        cdef int found = UNUSUAL
        connection.wait_for(self.tick_ns)
        self.asked()
        if begin(&transfer, &self.request.request, connection, start, count, place):
            found = self.wait(&transfer)
        if found != DONE:
            return unfinished(&transfer, connection, destination)
        self.account(connection, &transfer)
        self.give(connection, transfer.surplus)
        return None

    cdef int wait(self, Transfer *at) except -1:
        """Receive the whole response, as long as bytes arrive in every tick and the total timeout has not passed."""
        cdef int64_t had
        cdef int found
        while True:
            had = at.received + at.placed
            with nogil:
                found = receive_all(at)
            if found != WAITING:
                return found
            PyErr_CheckSignals()
            if at.received + at.placed == had and monotonic_ns() - at.since_ns >= self.tick_ns:
                return UNUSUAL  # the engine decides what to do about a silent connection
            if 0 <= self.total_ns <= monotonic_ns() - at.sent_ns:
                return UNUSUAL

    cdef int account(self, Connection connection, Transfer *at) except -1:
        """Count a received range."""
        connection.used = True
        self.answered()
        self.count(1, at.length)
        if at.length >= MEASURED:
            wait_ns, receive_ns = at.head_ns - at.sent_ns, at.since_ns - at.head_ns
            self.measured((wait_ns / 1e9, receive_ns / 1e9, at.length))
        return 0

    cdef void count(self, int64_t reads, int64_t nbytes) noexcept:
        """Count complete ranges, as the core does those of files."""
        self.engine.counters.reads += reads
        self.engine.counters.bytes_asked += nbytes
        self.engine.counters.bytes_fetched += nbytes

    cdef int give(self, Connection connection, bint surplus) except -1:
        """Return a connection to the idle ones or to a request that waits for one. Close it if it has received surplus bytes."""
        if surplus:
            connection.close()
        elif not self.idle.put(connection):
            self.give_back(connection)
        return 0

    def read_many(self, starts, lengths, list buffers not None, Py_ssize_t concurrent, double began):
        """See records.py."""
        cdef Batch batch = self.batch(starts, lengths, len(buffers), concurrent, began)
        return None if batch is None else batch.run(buffers)

    def iter_many(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began):
        """See records.py."""
        cdef Batch batch = self.batch(starts, lengths, first, concurrent, began)
        return None if batch is None else batch.one_by_one()

    cdef Batch batch(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began):
        """A Batch over up to `concurrent` idle connections, not yet started. None if those are not available."""
        cdef Batch batch
        if monotonic_ns() > self.until_ns:
            return None
        batch = Batch(self, starts, lengths, first, began)
        return batch if batch.connect(concurrent) else None


cdef class Batch:
    """Ranges over several connections at once: all of them with `run`, or one at a time with `next`. For one thread.

    It starts no more ranges once its SteadyReads has expired; the caller then makes another Batch for the rest.
    """

    def __cinit__(self, SteadyReads steady, starts, lengths, Py_ssize_t first, double began):
        self.work.epoll = -1
        self.steady = steady
        self.began_ns, self.forks = <int64_t>(began * 1e9), fork_count
        self.arrays = starts, lengths
        PyObject_GetBuffer(starts, &self.views[0], PyBUF_SIMPLE)
        self.viewed = 1
        PyObject_GetBuffer(lengths, &self.views[1], PyBUF_SIMPLE)
        self.viewed = 2
        self.work.ranges = len(starts)
        if not self.views[0].len == self.views[1].len == self.work.ranges * 8 or not 0 <= first:
            raise ValueError("starts and lengths must be int64 arrays of the same size")
        self.first = self.given = self.work.begun = self.work.placed = first
        self.work.starts, self.work.lengths = <int64_t *>self.views[0].buf, <int64_t *>self.views[1].buf
        self.work.request = &steady.request.request
        self.work.places = <char **>calloc(max(1, self.work.ranges), sizeof(char *))
        if self.work.places == NULL:
            raise MemoryError
        self.buffers, self.connections = {}, []

    def __dealloc__(self):
        cdef int i
        for i in range(self.viewed):
            PyBuffer_Release(&self.views[i])
        free(self.work.places)
        free(self.work.slots)
        free(self.work.landed)
        if self.work.epoll >= 0:
            close(self.work.epoll)

    cdef bint is_plain(self) noexcept:
        """Whether there is at least one range, and each fits into one request and lies within the object."""
        cdef int64_t most = self.steady.most, size = self.steady.size
        cdef Py_ssize_t i
        for i in range(self.first, self.work.ranges):
            if not (0 < self.work.lengths[i] <= most and 0 <= self.work.starts[i] <= size - self.work.lengths[i]):
                return False
        return self.first < self.work.ranges

    cdef bint connect(self, Py_ssize_t concurrent) except -1:
        """Take one connection for each range that may be in flight. False if too few are idle, or they cannot be watched."""
        cdef Connection connection
        cdef Py_ssize_t count = min(concurrent, self.work.ranges - self.first)
        if not self.is_plain() or len(self.steady.idle) < count:
            return False
        try:
            while len(self.connections) < count:
                connection = self.steady.connection()
                if connection is None:
                    self.close()
                    return False
                self.connections.append(connection)
            self.watch()
        except OSError:  # no descriptor is left
            self.close()
            return False
        except BaseException:
            self.close()
            raise
        return True

    cdef int watch(self) except -1:
        """Make a slot for each connection, and watch them all with one epoll."""
        cdef epoll_event event
        cdef Connection connection
        cdef int i
        self.work.count = len(self.connections)
        self.work.slots = <Slot *>calloc(self.work.count, sizeof(Slot))
        if self.work.slots == NULL:
            raise MemoryError
        for i in range(self.work.count):
            connection = self.connections[i]
            self.work.slots[i].index = IDLE
            self.work.slots[i].transfer.fd, self.work.slots[i].transfer.space = connection.fd, connection.head
        self.work.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.work.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(self.work.count):
            event.events, event.data.u32 = EPOLLIN, i
            if epoll_ctl(self.work.epoll, EPOLL_CTL_ADD, self.work.slots[i].transfer.fd, &event) < 0:
                raise OSError(errno, os.strerror(errno))
        return 0

    cdef int place(self, Py_ssize_t upto) except -1:
        """Allocate memory for the ranges below `upto`, within AHEAD_BYTES."""
        cdef Buffer buffer
        cdef Py_ssize_t index
        cdef int64_t nbytes = 0
        for index in range(self.work.placed, min(upto, self.work.ranges)):
            buffer = self.steady.memory.allocate(self.work.lengths[index])
            self.buffers[index], self.work.places[index] = buffer, buffer.data
            self.work.placed = index + 1
            nbytes += self.work.lengths[index]
            if nbytes > AHEAD_BYTES and index >= self.work.begun + self.work.count + EVENTS:
                break
        return 0

    cdef object run(self, list buffers):
        """See `SteadyReads.read_many` in records.py."""
        cdef Py_ssize_t i
        try:
            self.run_all()
            for _ in range(self.first, self.work.begun - self.work.busy):
                self.steady.answered()
            self.count()
            for i in range(self.first, self.work.begun):
                buffers.append(self.buffers[i])
            return self.unfinished()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        finally:
            for _ in range(self.first, self.work.begun):
                self.steady.asked()

    cdef void count(self) noexcept:
        """Count the ranges that are complete: all that were begun but those in flight."""
        cdef int64_t nbytes = 0
        cdef Py_ssize_t i
        for i in range(self.first, self.work.begun):
            nbytes += self.work.lengths[i]
        for i in range(self.work.count):
            if self.work.slots[i].index >= 0:
                nbytes -= self.work.slots[i].transfer.length
        self.steady.count(self.work.begun - self.work.busy - self.first, nbytes)

    cdef int run_all(self) except -1:
        """Run until all ranges are complete, or an unusual response arrives."""
        cdef int i
        self.place(self.first + AHEAD)
        for i in range(self.work.count):
            if not next_on(&self.work, &self.work.slots[i]):
                return 0
        while self.wait() == LOOK:
            self.place(self.work.begun + AHEAD)
        return 0

    cdef Batch one_by_one(self):
        """Prepare the batch for `next`."""
        try:
            self.work.landed = <Py_ssize_t *>calloc(self.work.count, sizeof(Py_ssize_t))
            if self.work.landed == NULL:
                raise MemoryError
        except BaseException:
            self.close()
            raise
        return self

    def next(self):
        """See records.py."""
        cdef Py_ssize_t index
        if self.forks != fork_count:
            self.over = True
        if not self.over:
            self.refill()
        while not self.work.landings:
            if self.over or not self.work.busy:
                return None
            self.over = self.wait() == UNUSUAL
        index = self.work.landed[self.taken]
        self.taken, self.given = self.taken + 1, self.given + 1
        if self.taken == self.work.landings:
            self.taken = self.work.landings = 0
        self.steady.answered()
        self.steady.count(1, self.work.lengths[index])
        found = index, self.buffers.pop(index)
        self.left_ns = monotonic_ns()
        return found

    cdef int refill(self) except -1:
        """Keep as many ranges in flight or complete as there are connections. Time spent between two calls of `next` does not
        count as silence."""
        cdef int64_t away = monotonic_ns() - self.left_ns if self.left_ns else 0
        cdef Slot *slot
        cdef int i
        self.end_in_time()
        for i in range(self.work.count):
            slot = &self.work.slots[i]
            slot.transfer.since_ns += away
            if slot.index != IDLE:
                continue
            if self.work.begun == self.work.ranges:
                epoll_ctl(self.work.epoll, EPOLL_CTL_DEL, slot.transfer.fd, NULL)
                slot.index = GONE
                connection, self.connections[i] = self.connections[i], None
                self.give(connection, slot)  # others may wait for a connection while the consumer is slow
            elif self.work.begun < self.given + self.work.count:
                self.place(self.work.begun + 1)
                self.steady.asked()
                if not next_on(&self.work, slot):
                    self.over = True
                    break
        return 0

    cdef int wait(self) except -1:
        """As `work_on`: first without waiting, with the GIL held, because getting it back may take long; then waiting."""
        cdef int found = LOOK
        self.work.look_ns = monotonic_ns() + LOOK_EVERY_NS
        if self.work.landed != NULL:
            found = work_on(&self.work, 0)
        if found == LOOK:
            with nogil:
                found = work_on(&self.work, <int>(self.steady.tick_ns // 1000000))
        if self.work.sampled:
            self.report_samples()
        if found == LOOK:
            self.end_in_time()
            PyErr_CheckSignals()
            if self.is_late() or self.forks != fork_count:
                found = UNUSUAL
        return found

    cdef int report_samples(self) except -1:
        """Report the latency and throughput measured on large responses."""
        cdef int i
        for i in range(min(self.work.sampled, SAMPLES)):
            made = &self.work.samples[i]
            self.steady.measured((made.waited / 1e9, made.received / 1e9, made.length))
        self.work.sampled = 0
        return 0

    cdef void end_in_time(self) noexcept:
        """Start no more ranges once the request has expired."""
        if monotonic_ns() > self.steady.until_ns:
            self.work.ranges = self.work.placed = self.work.begun

    cdef bint is_late(self) noexcept:
        """Whether a connection has been silent for a tick, or the total timeout has passed. The engine finds out which."""
        cdef int64_t now = monotonic_ns()
        cdef int i
        if 0 <= self.steady.total_ns < now - self.began_ns:
            return True
        for i in range(self.work.count):
            if self.work.slots[i].index >= 0 and now - self.work.slots[i].transfer.since_ns > self.steady.tick_ns:
                return True
        return False

    @property
    def begun(self):
        return self.work.begun

    def unfinished(self):
        """See records.py."""
        return self.release(True)

    def close(self):
        """See records.py."""
        self.release(False)

    cdef int give(self, Connection connection, Slot *slot) except -1:
        if slot != NULL and slot.transfer.length:
            connection.used = True
        return self.steady.give(connection, False)

    cdef list release(self, bint hand_over):
        """Return the idle connections. Those with a read in flight are handed over or closed."""
        cdef list under_way = []
        cdef Connection connection
        cdef Slot *slot
        while self.connections:
            connection = self.connections.pop()
            if connection is None:
                continue
            slot = NULL if self.work.slots == NULL else &self.work.slots[len(self.connections)]
            if slot == NULL or slot.index == IDLE:
                self.give(connection, slot)
            elif slot.index >= 0 and hand_over:
                under_way.append((slot.index, unfinished(&slot.transfer, connection, self.buffers[slot.index])))
            else:
                connection.close()
        self.over, self.work.busy, self.work.landings = True, 0, 0
        self.buffers.clear()  # a reference to this batch, e.g. in a traceback, must not keep them alive
        return under_way
