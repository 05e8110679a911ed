"""Reads of one object whose version is known, over idle connections, for other Cython modules."""

from libc.stdint cimport int64_t

from _uring.connections cimport Connection, IdleConnections
from _uring.engine cimport Engine
from _uring.memory cimport Memory
from _uring.transfer cimport RangeRequest, Transfer
from _uring.transfer_set cimport Slot, Work


cdef class SteadyReads:
    cdef Engine engine
    cdef Memory memory
    cdef IdleConnections idle
    cdef RangeRequest request
    cdef object give_back, asked, answered, measured
    cdef int64_t size, most, until_ns, tick_ns, total_ns
    cdef bint absolute

    cdef bint serves(self, int64_t start, int64_t count) noexcept
    cdef Connection connection(self)
    cdef object ask(self, Connection connection, int64_t start, int64_t count, char *place, destination)
    cdef int wait(self, Transfer *at) except -1
    cdef int give(self, Connection connection, bint surplus) except -1
    cdef int account(self, Connection connection, Transfer *at) except -1
    cdef void count(self, int64_t reads, int64_t nbytes) noexcept
    cdef Batch batch(self, starts, lengths, Py_ssize_t first, Py_ssize_t concurrent, double began)


cdef class Batch:
    cdef SteadyReads steady
    cdef Work work
    cdef Py_buffer views[2]
    cdef int viewed
    cdef tuple arrays
    cdef list connections
    cdef dict buffers
    cdef int64_t began_ns
    cdef int forks
    cdef Py_ssize_t first, given
    cdef int taken
    cdef int64_t left_ns
    cdef bint over

    cdef bint is_plain(self) noexcept
    cdef bint connect(self, Py_ssize_t concurrent) except -1
    cdef int watch(self) except -1
    cdef int place(self, Py_ssize_t upto) except -1
    cdef object run(self, list buffers)
    cdef void count(self) noexcept
    cdef int run_all(self) except -1
    cdef Batch one_by_one(self)
    cdef int refill(self) except -1
    cdef int wait(self) except -1
    cdef int report_samples(self) except -1
    cdef void end_in_time(self) noexcept
    cdef bint is_late(self) noexcept
    cdef int give(self, Connection connection, Slot *slot) except -1
    cdef list release(self, bint hand_over)
