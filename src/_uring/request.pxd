"""One read of one range of a file, and the group of reads that a caller waits for."""

from libc.stdint cimport int64_t, uint8_t

from _uring.mapping cimport Mapping, MapState
from _uring.residency cimport Cached

cdef enum:
    QUEUED = 0
    PUSHED = 1
    FINISHED = 2

cdef enum:
    # A sweep stops after this many reads that were not in the page cache: the rest is cold.
    MISSES_TO_STOP = 8
    LARGEST_READ = 0x7ff00000


cdef struct Request:
    # Destination, offset and length; `done` bytes have been read.
    char *data
    int64_t offset
    size_t length
    size_t done
    int fd
    int plain_fd
    int error
    uint8_t state
    uint8_t direct
    uint8_t tries
    Group *group
    Request *next


cdef struct Group:
    Request *requests
    Py_ssize_t count
    Py_ssize_t next
    Py_ssize_t unfinished
    Py_ssize_t in_flight
    Py_ssize_t misses
    Group *ended
    # While it is swept: what it may copy out of, and how many requests were.
    MapState *map
    Py_ssize_t mapped
    void *owner
    int abandoned
    int notify
    int listed
    int way
    Cached *cached


cdef bint advance(Request *request, int64_t result) noexcept nogil
cdef void sweep_one(Group *group, Py_ssize_t index) noexcept nogil
cdef void read_in_order(Group *group, Py_ssize_t index) noexcept nogil
cdef void read_one(Group *group, Py_ssize_t index) noexcept nogil


cdef class Batch:
    cdef Group group
    cdef Py_ssize_t capacity
    cdef readonly list keep
    cdef Py_ssize_t piece
    cdef size_t bytes
    cdef bint sweepable
    cdef bint by_ring
    cdef bint borrowed
    cdef bint sequential
    cdef bint shared
    cdef int only_fd
    cdef int depth
    cdef Mapping mapping
    cdef object waiter
    cdef object error
    cdef char *fixed_base
    cdef size_t fixed_size

    cdef int reserve(self, Py_ssize_t needed) except -1
    cdef Py_ssize_t add(self, int fd, int plain_fd, bint direct, char *data, int64_t offset, size_t length) except -1
    cdef int add_records(self, Request *like, char *data, const int64_t *offsets, Py_ssize_t count) except -1
    cdef size_t received(self, Py_ssize_t first, Py_ssize_t stop) noexcept
    cdef Py_ssize_t failed(self) noexcept
    cdef void settle(self) noexcept
    cdef void begin_again(self) noexcept
    cdef object finish(self)
    cdef tuple asked(self)
    cdef object failure(self, error)
