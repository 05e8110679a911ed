"""Awaitables of results that are already available, and a cooperative budget for tasks that await many of them."""

from libc.stdint cimport int64_t


cdef class Ready:
    cdef object value


cdef class Refused:
    cdef object error


cdef class Checkpoint:
    cdef object value
    cdef bint yielded
    cdef long long iteration


cdef class Queue:
    cdef object loop
    cdef object binding
    cdef object waiting
    cdef object arrived
    cdef bint due
    cdef int width
    cdef int woken

    cdef object enqueue(self, object value)


cdef bint may_hand_out(int64_t bytes) noexcept
cdef object hand_out(object value, int64_t bytes)
cdef object refuse(object error)
cdef int note_hit(int64_t bytes) except -1
cdef size_t copied_at_once() noexcept
