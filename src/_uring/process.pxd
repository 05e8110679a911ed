"""Process-wide facts: fork count, time, CPUs, page size."""

from libc.stdint cimport int64_t, uint64_t

cdef int fork_count
cdef int64_t page_size

cdef int64_t coarse_clock_ns() noexcept nogil
cdef int64_t monotonic_ns() noexcept nogil
cdef int usable_cpus() noexcept nogil


cdef struct Notifier:
    # An eventfd, and the device and inode by which to recognize it.
    int event
    uint64_t device
    uint64_t inode


cdef Notifier notifier_of(int event) noexcept nogil
cdef bint is_intact(Notifier *notifier) noexcept nogil
cdef void notify(Notifier *notifier) noexcept nogil
