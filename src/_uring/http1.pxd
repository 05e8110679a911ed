"""Strict parsing of response heads, and the check whether a response is plain. For other Cython modules."""

from libc.stdint cimport int64_t

# Results of `accept` other than the length of a head.
cdef enum:
    INCOMPLETE = 0
    NOT_PLAIN = -1

cdef struct Text:
    const char *at
    Py_ssize_t length


# The fields of a response that matter for a plain one. -1: missing, or "*".
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


# The fields that a plain response must have for the known version. An Expected owns the texts.
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
