"""How the files of a file system are read."""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # Nobody has asked yet.
    UNASKED = 0
    # The kernel says what is cached (RWF_NOWAIT), and reads the rest without a thread.
    TOLD = 1
    # There is no device: every byte is in memory.
    MEMORY = 2
    # Cached pages over a device of this machine: no read waits for longer than that takes.
    LOCAL = 3
    # A server or another process may have to be asked, or nobody knows.
    REMOTE = 4


cdef bint is_made_up(int fd) noexcept
cdef int way_of(int fd, uint64_t device, uint64_t attributes) noexcept
cdef bint has_prompt_fstat(int fd)
cdef bint has_mappable_pages(int fd, int64_t size)
