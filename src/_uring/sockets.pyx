"""Requests and replies over connected sockets: one call, and one giving up of the GIL at most, for what nearly always is
one exchange: a small request, a head whose length can be told beforehand, and a body that has its place already.

It knows no protocol: a reply goes on in its body if its head is as long as it was said to be, ends so, and holds what
was announced. What is otherwise is the caller's to look at, and nothing of it is lost.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcmp, memset

import os

# To copy as much as this takes 20 us; to get the GIL back beside a thread that computes takes 5 ms.
cdef size_t HELD_BELOW = 128 << 10
cdef ssize_t NOT_SENT = -2


def exchange(int fd, bytes request not None, head, bytes announced not None, body, bint waits):
    """Send `request`, unless it is empty, and receive into `head` and, if it is not None, into `body`.

    An empty `head` receives nothing. With a body, `head` has one byte more than the head: there lies the first one that
    follows the body, if one does, which nobody asked for.
    Returns how many bytes came in all, 0 at the end of the connection: they lie in `head`, and on from there in `body`.
    waits: the socket does. Then the GIL is given up (as it is for large bodies), and if the head ends with its last four
    bytes and holds `announced`, all of the body is waited for. A signal ends that, or the socket's time limit, though
    bytes come in all the while; what else goes wrong after the first bytes, the next call says.

    BlockingIOError: nothing has come. ConnectionError: the request was not taken, or the connection is broken.
    """
    cdef Spaces of
    cdef Py_buffer head_view, body_view
    cdef ssize_t count
    cdef int error = 0
    of.fd, of.waits = fd, waits
    of.request, of.request_length = PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request)
    of.announced, of.announced_length = PyBytes_AS_STRING(announced), PyBytes_GET_SIZE(announced)
    of.body, of.body_length = NULL, 0
    PyObject_GetBuffer(head, &head_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        of.head, of.head_length = <char *>head_view.buf, head_view.len
        if body is not None and head_view.len:
            PyObject_GetBuffer(body, &body_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            of.body, of.body_length = <char *>body_view.buf, body_view.len
            of.head_length -= 1
        try:
            if waits or of.body_length > HELD_BELOW:
                with nogil:
                    count = converse(&of)
                    error = errno
            else:
                count = converse(&of)
                error = errno
        finally:
            if of.body != NULL:
                PyBuffer_Release(&body_view)
    finally:
        PyBuffer_Release(&head_view)
    if count >= 0:
        return count
    if count == NOT_SENT:
        raise ConnectionError("the request could not be sent")
    if error == EINTR:
        PyErr_CheckSignals()
        error = EAGAIN
    raise OSError(error, os.strerror(error))


cdef ssize_t converse(Spaces *of) noexcept nogil:
    """Bytes received; -1 with errno, NOT_SENT if not all of the request was taken."""
    cdef iovec[3] parts
    cdef msghdr message
    cdef ssize_t count, more, left
    if of.request_length:
        # An idle connection takes a small request at once.
        count = socket_send(of.fd, of.request, of.request_length, MSG_NOSIGNAL | MSG_DONTWAIT)
        if count < 0 and errno != EAGAIN:
            return -1
        if count < <ssize_t>of.request_length:
            return NOT_SENT
    if not of.head_length:
        return 0
    parts[0].iov_base, parts[0].iov_len = of.head, of.head_length
    parts[1].iov_base, parts[1].iov_len = of.body, of.body_length
    parts[2].iov_base, parts[2].iov_len = of.head + of.head_length, 1
    memset(&message, 0, sizeof(message))
    message.msg_iov, message.msg_iovlen = parts, 3 if of.body_length else 1
    count = recvmsg(of.fd, &message, 0)
    if not of.waits or count < <ssize_t>of.head_length or not is_as_announced(of):
        return count
    left = of.head_length + of.body_length - count
    if left > 0:
        # Once: what comes short of it was ended by the time limit, a signal or the connection, and that is the caller's.
        more = socket_receive(of.fd, of.body + (count - of.head_length), left, MSG_WAITALL)
        if more > 0:
            count += more
    return count


def is_quiet(int fd):
    """See `IsQuiet` in surface.py."""
    return not unasked(fd)


cdef int unasked(int fd) noexcept nogil:
    """0 if a connection is open and nothing has come, 1 if something has or it was closed, -1 with errno."""
    cdef char byte
    if socket_receive(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0:
        return 1
    return 0 if errno == EAGAIN or errno == EINTR else -1


cdef inline bint is_as_announced(Spaces *of) noexcept nogil:
    if of.head_length < 4 or memcmp(of.head + of.head_length - 4, b"\r\n\r\n", 4) != 0:
        return False
    return memmem(of.head, of.head_length, of.announced, of.announced_length) != NULL
