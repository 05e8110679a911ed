"""An exchange that went well, made again with other numbers in it."""

from libc.stdint cimport int64_t

from _uring.line cimport Form, Work
from _uring.memory cimport Memory


cdef class Repeat:
    cdef Memory memory
    cdef object pool, idle, tick_s, asked, answered
    cdef tuple texts
    cdef Form request, reply
    cdef int64_t size, most, until_ns, tick_ns, total_ns
    cdef bint absolute

    cdef object ask(self, wire, int64_t start, int64_t count, char *place, into)
    cdef Convoy convoy(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began)
    cdef list take(self, Py_ssize_t count)
    cdef list quiet(self, list wires)
    cdef int give(self, wire) except -1


cdef class Convoy:
    cdef Repeat repeat
    cdef Work work
    cdef Py_buffer views[2]
    cdef int viewed
    cdef tuple arrays
    cdef list wires
    cdef dict buffers
    cdef int64_t began_ns
    cdef int forks
    cdef Py_ssize_t first, given
    cdef int taken
    cdef int64_t left_ns
    cdef bint odd

    cdef bint is_plain(self) noexcept
    cdef int couple(self) except -1
    cdef int place(self, Py_ssize_t upto) except -1
    cdef object run(self, list buffers)
    cdef Convoy one_by_one(self)
    cdef int refill(self) except -1
    cdef int wait(self) except -1
    cdef void end_in_time(self) noexcept
    cdef bint is_late(self) noexcept
    cdef list uncouple(self, bint hand_over)
