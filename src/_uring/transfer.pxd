"""One range under way over one connection: a request, the head of its response, its body. From C."""

from libc.stdint cimport int64_t

from _uring.connections cimport Connection
from _uring.http1 cimport Expected, Known

# What came of receiving: all of it is there; more has to come; or something else, for the engine to judge.
cdef enum:
    DONE = 0
    WAITING = 1
    UNUSUAL = 2


# The texts around the two numbers of a request, what is known of the version, and how long heads are beside their numbers.
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


# `hint` bytes of the response are received into `space`, what follows into `body`; 0: all into `space`. Before there is a
# head, `received` counts both; then `placed` counts the bytes of the body. error: 0 at the end of the connection, EAGAIN if
# nothing is wrong with it. surplus: more than the body came.
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
