"""One range under way over one connection: a request, the head of its response, its body.

The head is received with the body behind it, each into its place, because it is nearly always as long as the one before;
where that is wrong the body is moved. What is not a plain response is left as it came.
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
    # The texts of a request, and two numbers with what is between them.
    TEXT_ROOM = 8192
    # Of a head whose length is not known, and of what follows it: most heads are shorter, and what is not is copied.
    FIRST_RECEIVE = 1024
    # So many heads in a row as long as the one before, and the next one is expected to be.
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
    """Nothing is sent yet. The caller keeps what is pointed to."""
    memset(at, 0, sizeof(Transfer))
    at.request, at.fd, at.space, at.body, at.start, at.length = request, fd, space, body, start, length
    at.error = EAGAIN
    if request.steady >= STEADY:
        at.hint = request.head_length + digits_in_head(at)
        if at.hint > HEAD_ROOM:
            at.hint = 0


cdef bint send(Transfer *at) noexcept nogil:
    """Whether all of the request was taken, as an idle connection does with a small one."""
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
    """How long the next head will be. Threads may mix this up: then a hint is wrong, which costs a copy."""
    if request.head_length == head_length:
        request.steady = min(request.steady + 1, STEADY)
    else:
        request.head_length, request.steady = head_length, 0


cdef int receive(Transfer *at, int flags) noexcept nogil:
    """As far as it can be had now."""
    return receive_body(at, flags) if at.head_length else receive_head(at, flags)


cdef inline int failed(Transfer *at, ssize_t count) noexcept nogil:
    """Nothing came: the end, or what errno says."""
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
        # One byte beside the body shows whether more comes than was asked for.
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
    """Where the head may be as long as it likes: room for a small body, too, as that saves a receive."""
    cdef Py_ssize_t wanted = FIRST_RECEIVE
    if at.received == 0 and at.length < HEAD_ROOM - FIRST_RECEIVE:
        wanted += at.length
    return min(wanted, HEAD_ROOM - at.received)


cdef int judge(Transfer *at) noexcept nogil:
    """Look for the head in what has come. Once it is accepted, what came of the body is in its place."""
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
    """The head is longer than the hint: the rest of it is where the body was expected, which is moved down."""
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
        return WAITING  # the byte beside the body was the last one of the head
    memmove(at.body, at.body + found, in_body - found)
    at.placed = in_body - found
    if beyond > in_body:
        at.body[at.placed] = at.space[HEAD_ROOM]
        at.placed += 1
    return DONE if at.placed == at.length else WAITING


cdef void place(Transfer *at, Py_ssize_t head, Py_ssize_t in_space, Py_ssize_t beyond) noexcept nogil:
    """Put the body where it belongs: some of it lies behind the head in `space`, `beyond` bytes of it in `body`, and perhaps
    one byte too many beside it.
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
    """The same over a connection that waits. WAITING: its time is over, or a signal came, though bytes may have come."""
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
    )
