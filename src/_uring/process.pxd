"""Facts of the process that a read has to know."""

from libc.stdint cimport int64_t

cdef int fork_count
cdef int64_t page_size

cdef int64_t coarse_clock_ns() noexcept nogil
cdef int64_t monotonic_ns() noexcept nogil
cdef int usable_cpus() noexcept nogil
