"""Results that are there before they are awaited, and how long handing them out may hold an event loop."""

from libc.stdint cimport int64_t


cdef class Ready:
    cdef object value


cdef class Refused:
    cdef object error


cdef class Checkpoint:
    cdef object value
    cdef bint given
    cdef long long turn


cdef class Queue:
    cdef object loop
    cdef object binding
    cdef object parked
    cdef object coming
    cdef bint due
    cdef int width
    cdef int woken

    cdef object park(self, object value)


cdef object hand_out(object value, int64_t bytes)
cdef object refuse(object error)
cdef int note_hit(int64_t bytes) except -1
cdef size_t copied_at_once() noexcept
