"""Ranges read over connections that are idle, each by an exchange that went well before, with other numbers in it.

It knows no protocol. A request is a text with the first and the last byte in it; the head of the reply is a text with
those and the length in it, some bytes of which may be others (a time, a name of the reply), but no control characters.
A reply that is otherwise, or late, or broken off, is handed over as it is to who knows what it means: nothing is lost.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLong, PyLong_CheckExact
from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from _uring.memory cimport Buffer, Memory
from _uring.process cimport fork_count, monotonic_ns
from _uring.sockets cimport MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL, iovec, msghdr, recvmsg, socket_receive, socket_send

import os

from _uring.surface import REPEAT_ROOM

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
        unsigned int u32
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int most, int timeout_ms)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLLIN

# What came of a look at a line, and of all of them.
cdef enum:
    WAITING
    DONE
    ODD
    LOOK

# A line on which nothing is under way; one that is of no use any more.
cdef enum:
    IDLE = -1
    GONE = -2

cdef enum:
    EVENTS = 32

# Idle for less than this, a connection is trusted (as by the pool it is from).
cdef int64_t TRUSTED_NS = 1000000000
# How soon Ctrl-C is answered by who is never without work; who waits is woken by it.
cdef int64_t LOOK_EVERY_NS = 50000000


cdef int put_form(Form *form, tuple texts, tuple masks, tuple order) except -1:
    """Point into the texts, which the caller keeps."""
    cdef int i
    form.numbers = len(order)
    for i in range(form.numbers):
        form.order[i] = order[i]
    for i in range(form.numbers + 1):
        form.texts[i] = PyBytes_AS_STRING(texts[i])
        form.lengths[i] = PyBytes_GET_SIZE(texts[i])
        form.masks[i] = PyBytes_AS_STRING(masks[i]) if masks else NULL
    return 0


cdef int put_line(Line *line, wire) except -1:
    """Point into a connection, which the caller keeps, as it does its space, whose size does not change."""
    cdef bytearray space = wire.space
    if len(space) <= ROOM:
        raise ValueError(f"the space of a connection has more than {ROOM} bytes, not {len(space)}")
    line.fd, line.space, line.index = wire.sock.fileno(), PyByteArray_AS_STRING(space), IDLE
    return 0


cdef Py_ssize_t write_form(const Form *form, const int64_t *numbers, char *text, char *mask) noexcept nogil:
    """The text with its numbers, and which of its bytes are fixed; how long it is. There is room for it."""
    cdef char[20] digits
    cdef Py_ssize_t at = 0
    cdef int i, count
    cdef int64_t number
    for i in range(form.numbers + 1):
        memcpy(text + at, form.texts[i], form.lengths[i])
        if mask != NULL:
            memcpy(mask + at, form.masks[i], form.lengths[i])
        at += form.lengths[i]
        if i == form.numbers:
            break
        number, count = numbers[form.order[i]], 0
        while number or not count:
            count += 1
            digits[20 - count] = c'0' + <char>(number % 10)
            number //= 10
        memcpy(text + at, digits + 20 - count, count)
        if mask != NULL:
            memset(mask + at, 0xFF, count)
        at += count
    return at


cdef inline bint is_alike(const char *came, const char *text, const char *mask, Py_ssize_t length) noexcept nogil:
    """Whether all fixed bytes are the same, and the others no control characters, which might end a field."""
    cdef unsigned char other = 0, byte, fixed
    cdef Py_ssize_t i
    for i in range(length):
        byte, fixed = came[i], mask[i]
        other |= (byte ^ <unsigned char>text[i]) & fixed
        other |= (byte < 32) & ~fixed
    return not other


cdef bint begin(Line *line, const Form *request, const Form *reply, Py_ssize_t index, int64_t start, int64_t length, char *body) noexcept nogil:
    """Send a request; whether all of it was taken, which an idle connection does of a small one."""
    cdef char[ROOM] text
    cdef int64_t[3] numbers
    cdef Py_ssize_t size, sent
    numbers[0], numbers[1], numbers[2] = start, start + length - 1, length
    line.index, line.body, line.length, line.received, line.error = index, body, length, 0, EAGAIN
    line.head_length = write_form(reply, numbers, line.head, line.mask)
    size = write_form(request, numbers, text, NULL)
    sent = socket_send(line.fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < size:
        line.error = errno if sent < 0 and errno != EAGAIN else EPIPE
        return False
    return True


cdef int receive(Line *line, int flags) noexcept nogil:
    """DONE, or WAITING for more, or ODD. `error` is 0 at the end of the connection, EAGAIN if nothing is wrong with it.

    The byte after the head's place is for the first one that follows the body, which nobody asked for.
    """
    cdef iovec[3] parts
    cdef msghdr message
    cdef Py_ssize_t placed = line.received - line.head_length
    cdef ssize_t count
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    if placed >= 0:
        parts[0].iov_base, parts[0].iov_len = line.body + placed, line.length - placed
        parts[1].iov_base, parts[1].iov_len = line.space + line.head_length, 1
        message.msg_iovlen = 1 if flags & MSG_WAITALL else 2
    else:
        parts[0].iov_base, parts[0].iov_len = line.space + line.received, -placed
        parts[1].iov_base, parts[1].iov_len = line.body, line.length
        parts[2].iov_base, parts[2].iov_len = line.space + line.head_length, 1
        message.msg_iovlen = 3
    count = recvmsg(line.fd, &message, flags)
    if count <= 0:
        line.error = errno if count < 0 else 0
        if line.error == EINTR:
            line.error = EAGAIN
        return WAITING if line.error == EAGAIN else ODD
    line.received += count
    line.error = EAGAIN
    if line.received < line.head_length:
        return WAITING
    if placed < 0 and not is_alike(line.space, line.head, line.mask, line.head_length):
        return ODD
    if line.received < line.head_length + line.length:
        return WAITING
    return DONE if line.received == line.head_length + line.length else ODD


cdef int receive_all(Line *line) noexcept nogil:
    """The same over a connection that waits. WAITING: its time is over, or a signal came, though bytes may have."""
    cdef int found = receive(line, 0)
    return receive(line, MSG_WAITALL) if found == WAITING and line.received >= line.head_length else found


cdef int work_on(Work *work) noexcept nogil:
    """DONE, ODD, or LOOK: at the time, and for signals."""
    cdef epoll_event[EVENTS] events
    cdef Line *line
    cdef int i, ready, found
    while work.busy:
        ready = epoll_wait(work.epoll, events, EVENTS, <int>(work.tick_ns // 1000000))
        if ready <= 0:
            return LOOK
        for i in range(ready):
            line = &work.lines[events[i].data.u32]
            if line.index < 0:  # closed, or something that nobody asked for
                line.index = GONE
                epoll_ctl(work.epoll, EPOLL_CTL_DEL, line.fd, NULL)
                continue
            found = receive(line, MSG_DONTWAIT)
            if found == WAITING:
                line.since_ns = monotonic_ns()
                continue
            if found == DONE:
                line.index = IDLE
                work.busy -= 1
                if work.begun == work.ranges or next_on(work, line):
                    continue
            return ODD
        if monotonic_ns() > work.look_ns:
            return LOOK
    return DONE


cdef bint next_on(Work *work, Line *line) noexcept nogil:
    """Begin the next range on a line that is free; whether it could be."""
    cdef Py_ssize_t index = work.begun
    work.begun += 1
    work.busy += 1
    line.since_ns = monotonic_ns()
    return begin(line, work.request, work.reply, index, work.starts[index], work.lengths[index], work.places[index])


cdef class Repeat:
    """See the stub. Any thread."""

    def __init__(
        self,
        Memory memory not None,
        pool,
        idle,
        tuple request not None,
        tuple reply not None,
        int64_t size,
        int64_t most,
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
        self.size, self.most = size, most
        self.until_ns = monotonic_ns() + <int64_t>(good_s * 1e9)
        self.tick_s, total_s = timeout
        self.tick_ns = <int64_t>(self.tick_s * 1e9)
        self.total_ns = -1 if total_s is None else <int64_t>(total_s * 1e9)

    def read_at(self, offset, limit):
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
        """See the stub."""
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

    def read_many(self, starts, lengths, Py_ssize_t concurrent):
        """See the stub."""
        cdef Py_buffer first, second
        cdef Py_ssize_t count = len(starts)
        cdef int64_t began_ns = monotonic_ns()
        cdef Work work
        cdef Buffer buffer
        cdef Py_ssize_t i
        cdef list buffers = []
        if began_ns > self.until_ns or not count:
            return None
        memset(&work, 0, sizeof(work))
        work.epoll = -1
        PyObject_GetBuffer(starts, &first, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(lengths, &second, PyBUF_SIMPLE)
            try:
                if not first.len == second.len == count * 8:
                    raise ValueError("starts and lengths are arrays of int64, as many of each")
                work.starts, work.lengths, work.ranges = <int64_t *>first.buf, <int64_t *>second.buf, count
                if not self.are_plain(&work):
                    return None
                work.count = min(concurrent, count)
                wires = self.take(work.count)
                if wires is None:
                    return None
                try:
                    work.places = <char **>calloc(count, sizeof(char *))
                    work.lines = <Line *>calloc(work.count, sizeof(Line))
                    if work.places == NULL or work.lines == NULL:
                        raise MemoryError
                    for i in range(count):
                        buffer = self.memory.allocate(work.lengths[i])
                        work.places[i] = buffer.data
                        buffers.append(buffer)
                    return self.travel(&work, wires, buffers, began_ns)
                except BaseException:  # Ctrl-C
                    for wire in wires:
                        self.pool.drop(wire)
                    raise
            finally:
                PyBuffer_Release(&second)
        finally:
            PyBuffer_Release(&first)
            free(work.places)
            free(work.lines)
            if work.epoll >= 0:
                close(work.epoll)

    cdef bint are_plain(self, Work *work) noexcept:
        """Whether each range is a small one within the object."""
        cdef Py_ssize_t i
        for i in range(work.ranges):
            if not (0 < work.lengths[i] <= self.most and 0 <= work.starts[i] <= self.size - work.lengths[i]):
                return False
        return True

    cdef object travel(self, Work *work, list wires, list buffers, int64_t began_ns):
        """All ranges over all of the wires, which are given back; what is under way on one goes to the caller with it."""
        cdef epoll_event event
        cdef Line *line
        cdef int i, found, forks = fork_count
        cdef list under_way = []
        work.request, work.reply, work.tick_ns = &self.request, &self.reply, self.tick_ns
        work.epoll = epoll_create1(EPOLL_CLOEXEC)
        if work.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(work.count):
            line = &work.lines[i]
            put_line(line, wires[i])
            event.events, event.data.u32 = EPOLLIN, i
            if epoll_ctl(work.epoll, EPOLL_CTL_ADD, line.fd, &event) < 0:
                raise OSError(errno, os.strerror(errno))
        found = DONE
        for i in range(work.count):
            if found == DONE and not next_on(work, &work.lines[i]):
                found = ODD
        while found != ODD:
            work.look_ns = monotonic_ns() + LOOK_EVERY_NS
            with nogil:
                found = work_on(work)
            if found == DONE:
                break
            if found == LOOK:
                PyErr_CheckSignals()
                if self.is_late(work, began_ns) or forks != fork_count:
                    found = ODD
        for i in range(work.begun):
            self.asked()
        for i in range(work.begun - work.busy):
            self.answered()
        for i in reversed(range(work.count)):
            wire, line = wires.pop(), &work.lines[i]
            if line.index == IDLE:
                self.give(wire)
            elif line.index == GONE:
                self.pool.drop(wire)
            else:
                start = work.starts[line.index]
                under_way.append((line.index, told(line, wire, buffers[line.index], line.since_ns, start)))
        return buffers, under_way, work.begun, began_ns / 1e9

    cdef bint is_late(self, Work *work, int64_t began_ns) noexcept:
        """Whether one has been silent for long, or all of it takes too long: which time is over, the caller knows."""
        cdef int64_t now = monotonic_ns()
        cdef int i
        if 0 <= self.total_ns < now - began_ns:
            return True
        for i in range(work.count):
            if work.lines[i].index >= 0 and now - work.lines[i].since_ns > self.tick_ns:
                return True
        return False

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
                if wires[count - 1].idle_since < since:  # the last one taken was given back first
                    idle.extend(reversed(wires))
                    wires = None
        finally:
            lock.release()
        return wires

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


cdef tuple told(Line *line, wire, into, int64_t since_ns, int64_t start):
    """See `Strayed` in surface.py."""
    head = PyBytes_FromStringAndSize(line.head, line.head_length)
    return wire, [into], since_ns / 1e9, start, start + line.length, line.received, line.error, head
