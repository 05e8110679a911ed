"""Hints: what of a file will be read soon."""

from libc.stdint cimport int64_t

from _uring.open_file cimport Descriptor


cdef class Prefetch:
    cdef Descriptor plain
    cdef int fd
    cdef const int64_t[::1] starts
    cdef const int64_t[::1] lengths


cdef int prefetch(Descriptor plain, object starts, object lengths) except -1
