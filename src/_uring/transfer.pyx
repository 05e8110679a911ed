"""One range in flight on one connection: request, response head, body.

Head and body are received together, each directly into its place, because a head is nearly always as long as the one before
it. If that guess is wrong, the body is moved. A response that is not plain is left as received.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.string cimport memcpy, memmove, memset

from _uring.connections cimport HEAD_ROOM
from _uring.http1 cimport INCOMPLETE, accept
from _uring.kernel cimport MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL, iovec, msghdr, recvmsg, socket_send
from _uring.memory cimport Buffer
from _uring.process cimport monotonic_ns

from _uring.records import Unfinished

cdef enum:
    # Room for a request: its text, and the two numbers with the "-" between them.
    TEXT_ROOM = 8192
    # First receive if the length of the head is unknown. Most heads are shorter; the bytes after the head are copied.
    FIRST_RECEIVE = 1024
    # After this many heads in a row of the same length, the next one is expected to have it too.
    STEADY = 3


cdef class RangeRequest:
    """See `RangeRequest` in records.py."""

    def __init__(self, bytes before not None, bytes after not None, Expected expected not None):
        self.before, self.after, self.expected = before, after, expected
        self.request.before, self.request.before_length = PyBytes_AS_STRING(before), PyBytes_GET_SIZE(before)
        self.request.after, self.request.after_length = PyBytes_AS_STRING(after), PyBytes_GET_SIZE(after)
        self.request.known = expected.known


cdef inline int digits_of(int64_t number) noexcept nogil:
    cdef int count = 1
    while number >= 10:
        number //= 10
        count += 1
    return count


cdef inline Py_ssize_t write_number(char *at, int64_t number) noexcept nogil:
    cdef int count = digits_of(number), i
    for i in range(count):
        at[count - 1 - i] = c'0' + <char>(number % 10)
        number //= 10
    return count


cdef inline Py_ssize_t digits_in_head(Transfer *at) noexcept nogil:
    return digits_of(at.start) + digits_of(at.start + at.length - 1) + digits_of(at.length)


cdef bint begin(Transfer *at, Request *request, Connection connection, int64_t start, int64_t length, char *body) noexcept:
    """Send a request over a connection; see `send`."""
    prepare(at, request, connection.fd, connection.head, start, length, body)
    return send(at)


cdef void prepare(Transfer *at, Request *request, int fd, char *space, int64_t start, int64_t length, char *body) noexcept nogil:
    """Initialize a transfer, without sending. The caller keeps the memory behind all pointers alive."""
    memset(at, 0, sizeof(Transfer))
    at.request, at.fd, at.space, at.body, at.start, at.length = request, fd, space, body, start, length
    at.error = EAGAIN
    if request.steady >= STEADY:
        at.hint = request.head_length + digits_in_head(at)
        if at.hint > HEAD_ROOM:
            at.hint = 0


cdef bint send(Transfer *at) noexcept nogil:
    """Send the request. False if it was not sent completely; on an idle connection a small request always is."""
    cdef char[TEXT_ROOM] text
    cdef Request *request = at.request
    cdef Py_ssize_t size = request.before_length
    cdef ssize_t sent
    memcpy(text, request.before, size)
    size += write_number(text + size, at.start)
    text[size] = c'-'
    size += 1 + write_number(text + size + 1, at.start + at.length - 1)
    memcpy(text + size, request.after, request.after_length)
    size += request.after_length
    at.sent_ns = at.since_ns = monotonic_ns()
    sent = socket_send(at.fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < size:
        at.error = errno if sent < 0 and errno != EAGAIN else EPIPE
        return False
    return True


cdef inline void learn(Request *request, Py_ssize_t head_length) noexcept nogil:
    """Update the guess of the next head's length. A race between threads only makes a hint wrong, which costs a copy."""
    if request.head_length == head_length:
        request.steady = min(request.steady + 1, STEADY)
    else:
        request.head_length, request.steady = head_length, 0


cdef int receive(Transfer *at, int flags) noexcept nogil:
    """Receive what is available now."""
    return receive_body(at, flags) if at.head_length else receive_head(at, flags)


cdef inline int failed(Transfer *at, ssize_t count) noexcept nogil:
    """Nothing was received: the end of the connection, or an errno."""
    at.error = errno if count < 0 else 0
    if at.error == EINTR:
        at.error = EAGAIN
    return WAITING if at.error == EAGAIN else UNUSUAL


cdef int receive_head(Transfer *at, int flags) noexcept nogil:
    cdef iovec[3] parts
    cdef msghdr message
    cdef ssize_t count
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    if at.received < at.hint:
        parts[0].iov_base, parts[0].iov_len = at.space + at.received, at.hint - at.received
        parts[1].iov_base, parts[1].iov_len = at.body, at.length
        # One byte more than the body shows whether the response is too long.
        parts[2].iov_base, parts[2].iov_len = at.space + HEAD_ROOM, 1
        message.msg_iovlen = 3
    else:
        at.hint = 0
        parts[0].iov_base, parts[0].iov_len = at.space + at.received, room_for(at)
        message.msg_iovlen = 1
    count = recvmsg(at.fd, &message, flags)
    if count <= 0:
        return failed(at, count)
    at.received += count
    at.since_ns = at.head_ns = monotonic_ns()
    return judge(at)


cdef inline Py_ssize_t room_for(Transfer *at) noexcept nogil:
    """Bytes to receive while the length of the head is unknown. Includes a small body, which saves a receive."""
    cdef Py_ssize_t wanted = FIRST_RECEIVE
    if at.received == 0 and at.length < HEAD_ROOM - FIRST_RECEIVE:
        wanted += at.length
    return min(wanted, HEAD_ROOM - at.received)


cdef int judge(Transfer *at) noexcept nogil:
    """Parse the head from the bytes received. If it is accepted, move the received part of the body into place."""
    cdef Py_ssize_t in_space = min(at.received, at.hint) if at.hint else at.received
    cdef Py_ssize_t found = accept(&at.request.known, at.space, in_space, at.start, at.start + at.length)
    cdef Py_ssize_t beyond = at.received - in_space
    if found == INCOMPLETE and beyond:
        return judge_long(at, in_space, beyond)
    if found == INCOMPLETE:
        return WAITING if in_space < HEAD_ROOM else UNUSUAL
    if found < 0:
        return UNUSUAL
    learn(at.request, found - digits_in_head(at))
    place(at, found, in_space, beyond)
    return DONE if at.placed == at.length else WAITING


cdef int judge_long(Transfer *at, Py_ssize_t in_space, Py_ssize_t beyond) noexcept nogil:
    """The head is longer than the hint: its rest was received where the body belongs, so the body is moved down."""
    cdef Py_ssize_t in_body = min(beyond, at.length)
    cdef Py_ssize_t copied = min(in_body, HEAD_ROOM - in_space)
    cdef Py_ssize_t found
    memcpy(at.space + in_space, at.body, copied)
    if beyond > in_body and in_space + copied < HEAD_ROOM:
        at.space[in_space + copied] = at.space[HEAD_ROOM]
        copied += 1
    found = accept(&at.request.known, at.space, in_space + copied, at.start, at.start + at.length)
    if found == INCOMPLETE and copied == beyond and at.received < HEAD_ROOM:
        at.hint = 0
        return WAITING
    if found <= 0:
        return UNUSUAL
    learn(at.request, found - digits_in_head(at))
    at.head_length = found
    found -= in_space
    if found > in_body:
        return WAITING  # the extra byte was the last one of the head
    memmove(at.body, at.body + found, in_body - found)
    at.placed = in_body - found
    if beyond > in_body:
        at.body[at.placed] = at.space[HEAD_ROOM]
        at.placed += 1
    return DONE if at.placed == at.length else WAITING


cdef void place(Transfer *at, Py_ssize_t head, Py_ssize_t in_space, Py_ssize_t beyond) noexcept nogil:
    """Move the body into place: a part of it follows the head in `space`, `beyond` bytes are in `body`, possibly with one
    surplus byte after it.
    """
    cdef Py_ssize_t shift = in_space - head
    at.head_length = head
    if beyond > at.length:
        beyond, at.surplus = at.length, True
    if shift > at.length:
        shift, at.surplus = at.length, True
    if shift + beyond > at.length:
        beyond, at.surplus = at.length - shift, True
    if shift:
        memmove(at.body + shift, at.body, beyond)
        memcpy(at.body, at.space + head, shift)
    at.placed = shift + beyond


cdef int receive_body(Transfer *at, int flags) noexcept nogil:
    cdef iovec[2] parts
    cdef msghdr message
    cdef ssize_t count
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    parts[0].iov_base, parts[0].iov_len = at.body + at.placed, at.length - at.placed
    parts[1].iov_base, parts[1].iov_len = at.space + HEAD_ROOM, 1
    message.msg_iovlen = 1 if flags & MSG_WAITALL else 2
    count = recvmsg(at.fd, &message, flags)
    if count <= 0:
        return failed(at, count)
    at.since_ns = monotonic_ns()
    at.placed += count
    if at.placed > at.length:
        at.placed, at.surplus = at.length, True
    return DONE if at.placed == at.length else WAITING


cdef int receive_all(Transfer *at) noexcept nogil:
    """The same, blocking. WAITING: the timeout of the connection has passed or a signal arrived; bytes may have arrived too."""
    cdef int found = WAITING
    if not at.head_length:
        found = receive_head(at, 0)
    if found == WAITING and at.head_length:
        found = receive_body(at, MSG_WAITALL)
    return found


cdef object unfinished(Transfer *at, Connection connection, destination):
    """See `Unfinished` in records.py."""
    cdef Py_ssize_t in_space = at.head_length or (min(at.received, at.hint) if at.hint else at.received)
    head = PyBytes_FromStringAndSize(at.space, in_space)
    if isinstance(destination, Buffer):
        (<Buffer>destination).unfinished = True  # the engine writes the rest
    if not at.head_length and at.received > in_space:
        beyond = min(at.received - in_space, at.length)
        head += PyBytes_FromStringAndSize(at.body, beyond)
        if at.received - in_space > beyond:
            head += PyBytes_FromStringAndSize(at.space + HEAD_ROOM, 1)
    return Unfinished(
        connection,
        [destination],
        at.start,
        at.start + at.length,
        head,
        at.placed,
        at.error,
        at.sent_ns / 1e9,
        at.since_ns / 1e9,
        PyBytes_FromStringAndSize(at.request.before, at.request.before_length),
    )
