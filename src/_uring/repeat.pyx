"""Ranges read over connections that are idle, each by an exchange that went well before, with other numbers in it.

A reply that is otherwise than it should be, or late, or broken off, is handed over as it is to who knows what it means:
nothing is lost.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from libc.errno cimport errno
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from _uring.line cimport (
    DONE,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLIN,
    GONE,
    IDLE,
    LOOK,
    ODD,
    WAITING,
    Line,
    begin,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    next_on,
    put_form,
    put_line,
    receive_all,
    told,
    work_on,
)
from _uring.memory cimport Buffer, Memory
from _uring.process cimport fork_count, monotonic_ns
from _uring.sockets cimport unasked

import os

from _uring.surface import REPEAT_ROOM

# Idle for less than this, a connection is trusted (as by the pool it is from).
cdef int64_t TRUSTED_NS = 1000000000
# How soon Ctrl-C is answered by who is never without work; who waits is woken by it.
cdef int64_t LOOK_EVERY_NS = 50000000
# How many ranges have memory before they are asked for: memory that is new costs more than the read, and to get the GIL for
# it, beside a thread that computes, 5 ms.
cdef Py_ssize_t AHEAD = 1024


cdef class Repeat:
    """See `Repeat` in surface.py. Any thread."""

    def __init__(
        self,
        Memory memory not None,
        pool,
        idle,
        tuple request not None,
        tuple reply not None,
        int64_t size,
        int64_t most,
        bint absolute,
        double good_s,
        timeout,
        asked,
        answered,
    ):
        texts, masks, order = reply
        if max(sum(map(len, request)), sum(map(len, texts))) > REPEAT_ROOM:
            raise ValueError(f"the text of a request, and of a head, has at most {REPEAT_ROOM} bytes")
        if [len(text) for text in texts] != [len(mask) for mask in masks]:
            raise ValueError("a mask has a byte for each of its text")
        if len(request) != 3 or len(texts) != 4 or sorted(order) != [0, 1, 2]:
            raise ValueError("a request has two numbers in it, a reply has three")
        self.memory, self.pool, self.idle = memory, pool, idle
        self.asked, self.answered = asked, answered
        self.texts = request, texts, masks
        put_form(&self.request, request, (), (0, 1))
        put_form(&self.reply, texts, masks, order)
        self.size, self.most, self.absolute = size, most, absolute
        self.until_ns = monotonic_ns() + <int64_t>(good_s * 1e9)
        self.tick_s, total_s = timeout
        self.tick_ns = <int64_t>(self.tick_s * 1e9)
        self.total_ns = -1 if total_s is None else <int64_t>(total_s * 1e9)

    @property
    def good(self):
        return monotonic_ns() <= self.until_ns

    def read_at(self, offset, limit):
        """See surface.py."""
        cdef long long start, count
        cdef Buffer buffer
        if not PyLong_CheckExact(offset) or not PyLong_CheckExact(limit):
            return None
        try:
            start, count = PyLong_AsLongLong(offset), PyLong_AsLongLong(limit)
        except OverflowError:
            return None
        if start < 0 or count <= 0 or start >= self.size:
            return None
        count = min(count, self.size - start)
        if count > self.most or monotonic_ns() > self.until_ns:
            return None
        wires = self.take(1)
        if wires is None:
            return None
        wire = wires[0]
        try:
            buffer = self.memory.allocate(count)
            found = self.ask(wire, start, count, buffer.data, buffer)
        except BaseException:  # Ctrl-C
            self.pool.drop(wire)
            raise
        if found is None:
            self.give(wire)
            return buffer
        return found

    def read_into(self, view, long long start):
        """See surface.py."""
        cdef Py_buffer memory
        cdef int64_t count
        PyObject_GetBuffer(view, &memory, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            count = min(memory.len, self.size - start)
            wires = self.take(1) if 0 < count <= self.most and monotonic_ns() <= self.until_ns else None
            if wires is None:
                return None
            try:
                found = self.ask(wires[0], start, count, <char *>memory.buf, view)
            except BaseException:  # Ctrl-C
                self.pool.drop(wires[0])
                raise
        finally:
            PyBuffer_Release(&memory)
        if found is not None:
            return found
        self.give(wires[0])
        return count

    cdef object ask(self, wire, int64_t start, int64_t count, char *place, into):
        """None once the bytes are in place; else what came instead."""
        cdef Line line
        cdef int found = ODD
        cdef int64_t began_ns = monotonic_ns()
        if wire.tick_s != self.tick_s:
            wire.block(self.tick_s)
        put_line(&line, wire)
        self.asked()
        with nogil:
            if begin(&line, &self.request, &self.reply, 0, start, count, place):
                found = receive_all(&line)
        if found == DONE:
            self.answered()
            return None
        if found == WAITING:
            PyErr_CheckSignals()
        return told(&line, wire, into, began_ns, start)

    def read_many(self, starts, lengths, list buffers not None, Py_ssize_t concurrent, double began):
        """See surface.py."""
        cdef Convoy convoy = self.convoy(starts, lengths, len(buffers), concurrent, began)
        return None if convoy is None else convoy.run(buffers)

    def iter_many(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began):
        """See surface.py."""
        cdef Convoy convoy = self.convoy(starts, lengths, first, concurrent, began)
        return None if convoy is None else convoy.one_by_one()

    cdef Convoy convoy(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began):
        """Over so many connections, none of them asked for anything yet; None if that cannot be."""
        cdef Convoy convoy
        if monotonic_ns() > self.until_ns:
            return None
        convoy = Convoy(self, starts, lengths, first, began)
        if not convoy.is_plain():
            return None
        convoy.wires = self.take(min(concurrent, convoy.work.ranges - first))
        if convoy.wires is None:
            return None
        try:
            convoy.couple()
        except OSError:  # no descriptor is to be had
            convoy.close()
            return None
        except BaseException:
            convoy.close()
            raise
        return convoy

    cdef list take(self, Py_ssize_t count):
        """So many idle connections; None if there are fewer, or others wait for them, or they may have been closed."""
        cdef list wires = None
        pool, idle = self.pool, self.idle
        lock = pool.lock
        lock.acquire()
        try:
            if len(idle) >= count and not pool.waiting:
                since = monotonic_ns() / 1e9 - TRUSTED_NS / 1e9
                wires = [idle.pop() for _ in range(count)]
                # The last one taken was given back first. What speaks to a proxy is asked in another form.
                if wires[count - 1].idle_since < since or any([wire.absolute != self.absolute for wire in wires]):
                    idle.extend(reversed(wires))
                    wires = None
        finally:
            lock.release()
        return None if wires is None else self.quiet(wires)

    cdef list quiet(self, list wires):
        """These, if none of them was closed and nothing has come over them; else None."""
        cdef Py_ssize_t i, dirty = 0
        for i in range(len(wires)):
            if unasked(wires[i].sock.fileno()):
                self.pool.drop(wires[i])
                wires[i] = None
                dirty += 1
        if not dirty:
            return wires
        for wire in wires:
            if wire is not None:
                self.give(wire)
        return None

    cdef int give(self, wire) except -1:
        """It is idle again; or whose it is now, the pool decides."""
        pool = self.pool
        wire.used = True
        wire.idle_since = monotonic_ns() / 1e9
        lock = pool.lock
        lock.acquire()
        try:
            kept = pool.users > 0 and not pool.waiting
            if kept:
                self.idle.append(wire)
        finally:
            lock.release()
        if not kept:
            pool.give_back(wire)
        return 0


cdef class Convoy:
    """Ranges over several lines at once, all of them by `run`, or one after the other by `next`. One thread.

    It begins no more once the time of its Repeat is over: the caller makes another one for the rest.
    """

    def __cinit__(self, Repeat repeat, starts, lengths, Py_ssize_t first, double began):
        self.work.epoll = -1
        self.repeat = repeat
        self.began_ns, self.forks = <int64_t>(began * 1e9), fork_count
        self.arrays = starts, lengths
        PyObject_GetBuffer(starts, &self.views[0], PyBUF_SIMPLE)
        self.viewed = 1
        PyObject_GetBuffer(lengths, &self.views[1], PyBUF_SIMPLE)
        self.viewed = 2
        self.work.ranges = len(starts)
        if not self.views[0].len == self.views[1].len == self.work.ranges * 8 or not 0 <= first:
            raise ValueError("starts and lengths are arrays of int64, as many of each")
        self.first = self.given = self.work.begun = self.work.placed = first
        self.work.starts, self.work.lengths = <int64_t *>self.views[0].buf, <int64_t *>self.views[1].buf
        self.work.request, self.work.reply = &repeat.request, &repeat.reply
        self.work.places = <char **>calloc(max(1, self.work.ranges), sizeof(char *))
        if self.work.places == NULL:
            raise MemoryError
        self.buffers = {}

    def __dealloc__(self):
        cdef int i
        for i in range(self.viewed):
            PyBuffer_Release(&self.views[i])
        free(self.work.places)
        free(self.work.lines)
        free(self.work.landed)
        if self.work.epoll >= 0:
            close(self.work.epoll)

    cdef bint is_plain(self) noexcept:
        """Whether each range is a small one within the object, and there is one."""
        cdef int64_t most = self.repeat.most, size = self.repeat.size
        cdef Py_ssize_t i
        for i in range(self.first, self.work.ranges):
            if not (0 < self.work.lengths[i] <= most and 0 <= self.work.starts[i] <= size - self.work.lengths[i]):
                return False
        return self.first < self.work.ranges

    cdef int couple(self) except -1:
        """A line for each connection."""
        cdef epoll_event event
        cdef int i
        self.work.count = len(self.wires)
        self.work.lines = <Line *>calloc(self.work.count, sizeof(Line))
        if self.work.lines == NULL:
            raise MemoryError
        for i in range(self.work.count):
            put_line(&self.work.lines[i], self.wires[i])
        self.work.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.work.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(self.work.count):
            event.events, event.data.u32 = EPOLLIN, i
            if epoll_ctl(self.work.epoll, EPOLL_CTL_ADD, self.work.lines[i].fd, &event) < 0:
                raise OSError(errno, os.strerror(errno))
        return 0

    cdef int place(self, Py_ssize_t upto) except -1:
        """Memory for the ranges below this one."""
        cdef Buffer buffer
        cdef Py_ssize_t index
        for index in range(self.work.placed, min(upto, self.work.ranges)):
            buffer = self.repeat.memory.allocate(self.work.lengths[index])
            self.buffers[index], self.work.places[index] = buffer, buffer.data
            self.work.placed = index + 1
        return 0

    cdef object run(self, list buffers):
        """See `Repeat.read_many` in surface.py."""
        cdef Py_ssize_t i
        cdef int found = DONE
        try:
            self.place(self.first + AHEAD)
            for i in range(self.work.count):
                if found == DONE and not next_on(&self.work, &self.work.lines[i]):
                    found = ODD
            if found == DONE:
                while True:
                    found = self.wait()
                    if found != LOOK:
                        break
                    self.place(self.work.begun + AHEAD)
            for i in range(self.first, self.work.begun - self.work.busy):
                self.repeat.answered()
            for i in range(self.first, self.work.begun):
                buffers.append(self.buffers[i])
            return self.strayed()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        finally:
            for i in range(self.first, self.work.begun):
                self.repeat.asked()

    cdef Convoy one_by_one(self):
        """For `next`."""
        try:
            self.work.landed = <Py_ssize_t *>calloc(self.work.count, sizeof(Py_ssize_t))
            if self.work.landed == NULL:
                raise MemoryError
        except BaseException:
            self.close()
            raise
        return self

    def next(self):
        """See surface.py."""
        cdef Py_ssize_t index
        if self.forks != fork_count:
            self.odd = True
        if not self.odd:
            self.refill()
        while not self.work.landings:
            if self.odd or not self.work.busy:
                return None
            self.odd = self.wait() == ODD
        index = self.work.landed[self.taken]
        self.taken, self.given = self.taken + 1, self.given + 1
        if self.taken == self.work.landings:
            self.taken = self.work.landings = 0
        self.repeat.answered()
        found = index, self.buffers.pop(index)
        self.left_ns = monotonic_ns()
        return found

    cdef int refill(self) except -1:
        """Have as many under way, or landed, as there are lines. What is silent while nobody listens is not late."""
        cdef int64_t away = monotonic_ns() - self.left_ns
        self.end_in_time()
        cdef Line *line
        cdef int i
        for i in range(self.work.count):
            line = &self.work.lines[i]
            line.since_ns += away
            if line.index != IDLE:
                continue
            if self.work.begun == self.work.ranges:
                epoll_ctl(self.work.epoll, EPOLL_CTL_DEL, line.fd, NULL)
                line.index = GONE
                wire, self.wires[i] = self.wires[i], None
                self.repeat.give(wire)  # others may wait for one while the consumer takes its time
            elif self.work.begun < self.given + self.work.count:
                self.place(self.work.begun + 1)
                self.repeat.asked()
                if not next_on(&self.work, line):
                    self.odd = True
                    break
        return 0

    cdef int wait(self) except -1:
        """As `work_on`: first at once, as getting the GIL back may take long; then for as long as it takes."""
        cdef int found = LOOK
        self.work.look_ns = monotonic_ns() + LOOK_EVERY_NS
        if self.work.landed != NULL:
            found = work_on(&self.work, 0)
        if found == LOOK:
            with nogil:
                found = work_on(&self.work, <int>(self.repeat.tick_ns // 1000000))
        if found == LOOK:
            self.end_in_time()
            PyErr_CheckSignals()
            if self.is_late() or self.forks != fork_count:
                found = ODD
        return found

    cdef void end_in_time(self) noexcept:
        """Begin nothing more once the request is out of date."""
        if monotonic_ns() > self.repeat.until_ns:
            self.work.ranges = self.work.placed = self.work.begun

    cdef bint is_late(self) noexcept:
        """Whether one has been silent for long, or all of it takes too long: which time is over, the caller knows."""
        cdef int64_t now = monotonic_ns()
        cdef int i
        if 0 <= self.repeat.total_ns < now - self.began_ns:
            return True
        for i in range(self.work.count):
            if self.work.lines[i].index >= 0 and now - self.work.lines[i].since_ns > self.repeat.tick_ns:
                return True
        return False

    @property
    def begun(self):
        return self.work.begun

    def strayed(self):
        """See surface.py."""
        return self.uncouple(True)

    def close(self):
        """See surface.py."""
        self.uncouple(False)

    cdef list uncouple(self, bint hand_over):
        """Give the connections back, but those on which something is under way: hand them over, or close them."""
        cdef list under_way = []
        cdef Line *line
        while self.wires:
            wire = self.wires.pop()
            line = &self.work.lines[len(self.wires)]
            if wire is None:
                continue
            if self.work.epoll < 0 or line.index == IDLE:
                self.repeat.give(wire)
            elif line.index >= 0 and hand_over:
                start, buffer = self.work.starts[line.index], self.buffers[line.index]
                under_way.append((line.index, told(line, wire, buffer, line.since_ns, start)))
            else:
                self.repeat.pool.drop(wire)
        self.odd, self.work.busy, self.work.landings = True, 0, 0
        self.buffers.clear()  # whoever holds this, perhaps by the traceback of an error, does not hold them
        return under_way
