"""One connection, and the request and reply that are under way on it: all of it without the GIL, and without a protocol.

A request is a text with the first and the last byte in it; the head of the reply is a text with those and the length in
it, some bytes of which may be others (a time, a name of the reply), but no control characters.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.string cimport memcpy, memset

from _uring.process cimport monotonic_ns
from _uring.sockets cimport MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL, iovec, msghdr, recvmsg, socket_send

cdef enum:
    EVENTS = 32


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
    if placed < 0 and not is_alike(line.space, line.head, line.mask, min(line.received, line.head_length)):
        return ODD  # at once: a reply that refuses may be shorter than the head that was expected
    if line.received < line.head_length + line.length:
        return WAITING
    return DONE if line.received == line.head_length + line.length else ODD


cdef int receive_all(Line *line) noexcept nogil:
    """The same over a connection that waits. WAITING: its time is over, or a signal came, though bytes may have."""
    cdef int found = receive(line, 0)
    return receive(line, MSG_WAITALL) if found == WAITING and line.received >= line.head_length else found


cdef int work_on(Work *work, int timeout_ms) noexcept nogil:
    """DONE once nothing is under way, or, if they are taken one by one, something has landed; ODD; or LOOK: nothing came in
    that time, or it is time to hear signals, or there is little memory left that was placed.
    """
    cdef epoll_event[EVENTS] events
    cdef Line *line
    cdef int i, ready, found
    while work.busy:
        ready = epoll_wait(work.epoll, events, EVENTS, timeout_ms)
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
                if work.landed != NULL:
                    work.landed[work.landings] = line.index
                    work.landings += 1
                line.index = IDLE
                work.busy -= 1
                if work.landed != NULL or work.begun == work.placed or next_on(work, line):
                    continue
            return ODD
        if work.landings:
            return DONE
        if monotonic_ns() > work.look_ns or (work.begun + EVENTS > work.placed and work.placed < work.ranges):
            return LOOK
    return DONE


cdef bint next_on(Work *work, Line *line) noexcept nogil:
    """Begin the next range on a line that is free; whether it could be."""
    cdef Py_ssize_t index = work.begun
    work.begun += 1
    work.busy += 1
    line.since_ns = monotonic_ns()
    return begin(line, work.request, work.reply, index, work.starts[index], work.lengths[index], work.places[index])


cdef tuple told(Line *line, wire, into, int64_t since_ns, int64_t start):
    """See `Strayed` in surface.py."""
    head = PyBytes_FromStringAndSize(line.head, line.head_length)
    return wire, [into], since_ns / 1e9, start, start + line.length, line.received, line.error, head
