"""Which bytes of a file are in the page cache."""

from libc.stdint cimport int64_t, uint64_t


cdef struct Cached:
    # The file, mapped without access, and for some of its blocks when they were seen to be cached.
    char *mapping
    int64_t bytes
    uint64_t *seen
    uint64_t mask


cdef double cached_share(int fd, int64_t start, int64_t length) noexcept nogil
cdef bint is_cached(Cached *file, int64_t start, int64_t length) noexcept nogil


cdef class Residency:
    cdef Cached cached
