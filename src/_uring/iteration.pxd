"""Reads of one file, yielded as they complete."""

from libc.stdint cimport int64_t

from _uring.engine cimport Engine
from _uring.open_file cimport Descriptor, OpenFile
from _uring.reads cimport ReadAt
from _uring.ring cimport Ring


cdef class Iteration:
    cdef Engine engine
    cdef OpenFile file
    cdef const int64_t[::1] starts
    cdef const int64_t[::1] lengths
    cdef Ring ring
    cdef bint asked
    cdef object ready
    cdef set under_way
    cdef Py_ssize_t next
    cdef int depth
    cdef bint busy
    cdef bint ordered
    cdef dict held
    cdef Py_ssize_t released
    cdef Descriptor plain
    cdef int64_t fresh

    cdef int pump(self) except -1
    cdef int stop(self) except -1
    cdef int sweep(self, ReadAt read) except -1
    cdef int start(self, Py_ssize_t index) except -1
    cdef bint has_ring(self) except -1
    cdef int send(self, ReadAt read) except -1
    cdef int wait(self) except -1
    cdef int finish(self, ReadAt read) except -1
    cdef int feed(self, ReadAt read) except -1
    cdef int enter(self, int count) except -1
    cdef int leave_ring(self) except -1
    cdef int begin_again(self) except -1
