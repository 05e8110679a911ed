"""Async reads of a steady state, for other Cython modules."""

from libc.stdint cimport int64_t

from _uring.connections cimport Connection
from _uring.steady cimport SteadyReads
from _uring.transfer cimport Transfer


cdef class Awaited:
    cdef Transfer transfer
    cdef LoopTransfers place
    cdef SteadyReads steady
    cdef Connection connection
    cdef object into, destination, waiter, reader, adopted
    cdef Py_ssize_t slot

    cdef int64_t deadline(self) noexcept
    cdef object as_it_is(self)
    cdef int otherwise(self, found) except -1


cdef class LoopTransfers:
    cdef object __weakref__
    cdef object key, binding
    cdef int epoll
    cdef int forks
    cdef list slots, free
    cdef int64_t due_ns, used_ns
    cdef readonly bint ended

    cdef Awaited send_for(self, SteadyReads steady, int64_t start, int64_t count, into, waiter, reader)
    cdef bint watch(self, Awaited read) except -1
    cdef int remove(self, Awaited read) except -1
    cdef int take(self, Awaited read) except -1
    cdef int see_to(self, Awaited read, bint late) except -1
    cdef int hand_over(self, Awaited read) except -1
    cdef int landed(self, Awaited read) except -1
    cdef int look_by(self, int64_t due_ns) except -1
    cdef list under_way(self)
    cdef int cancel(self, Awaited read) except -1
