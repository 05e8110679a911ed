"""Ranges in flight on several connections that are watched together. For other Cython modules."""

from libc.stdint cimport int64_t

from _uring.transfer cimport Request, Transfer

cdef enum:
    # Result of a wait besides DONE and UNUSUAL: nothing has arrived, or it is time to check signals or allocate memory.
    LOOK = 3
    EVENTS = 32
    # No range is in flight on the connection; the connection can no longer be used.
    IDLE = -1
    GONE = -2
    SAMPLES = 32


# Duration of a large response in ns: until its head, and from there to its end.
cdef struct Sample:
    int64_t waited
    int64_t received
    int64_t length


# A connection of a batch, and the index of the range in flight on it, or IDLE or GONE.
cdef struct Slot:
    Transfer transfer
    Py_ssize_t index


# Ranges below `ranges`. Those below `placed` have memory, and those below `begun` were requested. landed: the complete ranges,
# if they are taken one at a time; if NULL, each complete range is followed by the next one at once.
cdef struct Work:
    Request *request
    Slot *slots
    int count
    int busy
    int epoll
    const int64_t *starts
    const int64_t *lengths
    char **places
    Py_ssize_t begun
    Py_ssize_t placed
    Py_ssize_t ranges
    Py_ssize_t *landed
    int landings
    int64_t look_ns
    Sample samples[SAMPLES]
    int sampled


cdef int work_on(Work *work, int timeout_ms) noexcept nogil
cdef bint next_on(Work *work, Slot *slot) noexcept nogil
