"""One range in flight on one connection: request, response head, body. For other Cython modules."""

from libc.stdint cimport int64_t

from _uring.connections cimport Connection
from _uring.http1 cimport Expected, Known

# Result of receiving: complete; more has to arrive; or anything else, which is for the HTTP engine.
cdef enum:
    DONE = 0
    WAITING = 1
    UNUSUAL = 2


# The text of a request around its two numbers, the known version, and the length of response heads without their numbers.
cdef struct Request:
    const char *before
    Py_ssize_t before_length
    const char *after
    Py_ssize_t after_length
    Known known
    Py_ssize_t head_length
    int steady


cdef class RangeRequest:
    cdef readonly bytes before
    cdef readonly bytes after
    cdef readonly Expected expected
    cdef Request request


# The first `hint` bytes of the response are received into `space`, the rest into `body`; hint 0: all into `space`. Until the
# head is complete, `received` counts both; after that, `placed` counts the bytes of the body. error: 0 at the end of the
# connection, EAGAIN if the connection is intact. surplus: more bytes than the body have arrived.
cdef struct Transfer:
    Request *request
    int fd
    char *space
    char *body
    int64_t start
    int64_t length
    Py_ssize_t hint
    Py_ssize_t received
    Py_ssize_t head_length
    int64_t placed
    int64_t sent_ns
    int64_t head_ns
    int64_t since_ns
    int error
    bint surplus


cdef bint begin(Transfer *at, Request *request, Connection connection, int64_t start, int64_t length, char *body) noexcept
cdef bint send(Transfer *at) noexcept nogil
cdef void prepare(Transfer *at, Request *request, int fd, char *space, int64_t start, int64_t length, char *body) noexcept nogil
cdef int receive(Transfer *at, int flags) noexcept nogil
cdef int receive_all(Transfer *at) noexcept nogil
cdef object unfinished(Transfer *at, Connection connection, destination)
