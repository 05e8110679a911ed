"""Reads into memory of the caller."""

from libc.stdint cimport int64_t

from _uring.memory cimport Buffer
from _uring.open_file cimport OpenFile
from _uring.reads cimport FileRead


cdef struct Place:
    # A range and its memory: `want` bytes, of which the file has `length`.
    char *data
    int64_t start
    int64_t want
    int64_t length
    # Its run: the requests, and the bytes that they read before it.
    Py_ssize_t first
    Py_ssize_t stop
    int64_t lead
    bint joins


cdef class Move:
    cdef char *source
    cdef char *data
    cdef size_t length
    cdef Buffer bounce
    cdef Py_ssize_t request
    cdef size_t skipped

    cdef int make(self, size_t received) except -1


cdef class ReadManyInto(FileRead):
    cdef Place *places
    cdef Py_ssize_t count
    cdef Py_ssize_t runs
    cdef list moves
    cdef bint waits

    cdef int take(self, list views, const int64_t *starts) except -1
    cdef int past_cache_if_long(self) except -1
    cdef int queue_runs(self) except -1
    cdef int64_t place(self, char *data, int64_t start, int64_t length) except -1
    cdef int bounce(self, char *data, int64_t start, int64_t length) except -1
    cdef list counts(self)


cdef class ReadInto(ReadManyInto):
    pass


cdef ReadInto read_into(OpenFile file, object view, int64_t start, bint waits)
cdef ReadManyInto read_many_into(OpenFile file, list views, object starts, int concurrent, bint waits)
