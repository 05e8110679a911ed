"""Async reads of a steady state, for other Cython modules."""

from _uring.connections cimport Connection
from _uring.steady cimport SteadyReads
from _uring.transfer cimport Transfer


cdef class Awaited:
    cdef Transfer transfer
    cdef Connection connection
    cdef SteadyReads steady
    cdef object destination
    cdef bint is_into
    cdef readonly object token
    cdef Py_ssize_t slot

    cdef object hand_over(self)


cdef class LoopTransfers:
    cdef int epoll
    cdef int forks
    cdef list slots, free

    cdef int watch(self, Awaited read) except -1
    cdef int remove(self, Awaited read) except -1
    cdef object received(self, Awaited read)
    cdef object landed(self, Awaited read)
