"""One io_uring instance: push, enter, reap."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from _uring.liburing cimport Library, abi_ring
from _uring.request cimport Batch, Group, Request


cdef class Ring:
    cdef Library library
    cdef abi_ring ring
    cdef readonly int entries
    cdef readonly int most
    cdef uint64_t device
    cdef uint64_t inode
    cdef int made_after_forks
    cdef bint open
    cdef int refused
    cdef readonly Py_ssize_t in_flight
    cdef readonly uint64_t enters
    cdef readonly uint64_t reads
    cdef Request *retry
    cdef Group *ended
    cdef char *fixed_base
    cdef char *fixed_end
    cdef int fixed_fd
    cdef bint has_files
    cdef bint file_fixed
    cdef bint memory_fixed

    cdef bint push(self, Request *request) noexcept nogil
    cdef int fill(self, Group *group, int depth) noexcept nogil
    cdef int enter(self, int wait) noexcept nogil
    cdef void refuse(self, int error) noexcept nogil
    cdef int pause(self) noexcept nogil
    cdef void reap(self) noexcept nogil
    cdef void note_end(self, Group *group) noexcept nogil
    cdef int drive(self, Group *group, int depth) noexcept nogil
    cdef int run(self, Batch batch) except -1
    cdef int drain(self, Group *group) except -1
    cdef void recall(self) noexcept nogil
    cdef void start(self, Batch batch)
    cdef void forget_retries(self, Group *group) noexcept
    cdef void abandon(self, Batch batch)
    cdef void release(self, Batch batch)
    cdef void drop(self, Batch batch)
    cdef Batch next_ended(self)
    cdef void forget_ended(self)
    cdef void shut(self) noexcept
    cdef bint owned(self) noexcept
    cdef bint usable(self) noexcept
    cdef bint inherited(self) noexcept nogil
    cdef object __weakref__
    cdef void fix_file(self, int fd) noexcept
    cdef void fix_memory(self, char *base, size_t size) noexcept
    cdef void unfix(self) noexcept
