"""Ranges under way over several connections that are watched together. From C."""

from libc.stdint cimport int64_t

from _uring.transfer cimport Request, Transfer

cdef enum:
    # What came of a wait besides DONE and UNUSUAL: nothing, or it is time to hear signals, or to place more memory.
    LOOK = 3
    EVENTS = 32
    # No range is under way on a connection; the connection is of no use any more.
    IDLE = -1
    GONE = -2
    SAMPLES = 32


# How long a large response took, in ns: until its head, and from there to its end.
cdef struct Sample:
    int64_t waited
    int64_t received
    int64_t length


# A connection of a batch, and the range that is under way on it: its index, or IDLE or GONE.
cdef struct Slot:
    Transfer transfer
    Py_ssize_t index


# Ranges up to `ranges`, of which those below `placed` have memory, and those below `begun` were asked for. landed: what has,
# if it is taken one by one; else the next one is begun at once.
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
