"""The head of a response, parsed strictly, and whether it is plain. From C."""

from libc.stdint cimport int64_t

# Found by `accept` beside the length of a head.
cdef enum:
    INCOMPLETE = 0
    NOT_PLAIN = -1

cdef struct Text:
    const char *at
    Py_ssize_t length


# What a response says, as far as it matters for a plain one. -1: not said, or "*".
cdef struct Said:
    int status
    bint names_connection
    int64_t length
    int64_t first
    int64_t last
    int64_t total
    Text etag
    Text modified
    Text encoding


# What a plain response says of the version that is known; the texts are kept by an Expected.
cdef struct Known:
    int64_t size
    bint strong
    Text etag
    Text modified
    Text encoding


cdef Py_ssize_t parse(const char *text, Py_ssize_t length, Said *said) noexcept nogil
cdef Py_ssize_t accept(const Known *known, const char *text, Py_ssize_t length, int64_t start, int64_t stop) noexcept nogil


cdef class Expected:
    cdef readonly bytes etag
    cdef readonly bytes modified
    cdef readonly bytes encoding
    cdef Known known
