"""Facts of the process that a read has to know."""

from libc.stdint cimport int64_t, uint64_t

cdef int fork_count
cdef int64_t page_size

cdef int64_t coarse_clock_ns() noexcept nogil
cdef int64_t monotonic_ns() noexcept nogil
cdef int usable_cpus() noexcept nogil


cdef struct Alarm:
    # An eventfd, and which file that was.
    int event
    uint64_t device
    uint64_t inode


cdef Alarm alarm_of(int event) noexcept nogil
cdef bint is_intact(Alarm *alarm) noexcept nogil
cdef void sound(Alarm *alarm) noexcept nogil
