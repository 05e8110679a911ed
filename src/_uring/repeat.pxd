"""An exchange that went well, made again with other numbers in it."""

from libc.stdint cimport int64_t

from _uring.memory cimport Memory


cdef enum:
    ROOM = 2048  # for a request, and for the head of a reply


# A text with two or three numbers in it: texts[0], the number that order[0] chooses, texts[1], and so on.
cdef struct Form:
    int numbers
    int order[3]
    const char *texts[4]
    const char *masks[4]
    Py_ssize_t lengths[4]


# A connection, and the range that is under way on it.
cdef struct Line:
    int fd
    int error
    Py_ssize_t index
    int64_t since_ns
    char *space
    Py_ssize_t head_length
    char *body
    Py_ssize_t length
    Py_ssize_t received
    char head[ROOM]
    char mask[ROOM]


# What several lines work on.
cdef struct Work:
    const Form *request
    const Form *reply
    Line *lines
    int count
    int busy
    int epoll
    const int64_t *starts
    const int64_t *lengths
    char **places
    Py_ssize_t begun
    Py_ssize_t ranges
    int64_t tick_ns
    int64_t look_ns


cdef class Repeat:
    cdef Memory memory
    cdef object pool, idle, tick_s, asked, answered
    cdef tuple texts
    cdef Form request, reply
    cdef int64_t size, most, until_ns, tick_ns, total_ns

    cdef object ask(self, wire, int64_t start, int64_t count, char *place, into)
    cdef list take(self, Py_ssize_t count)
    cdef int give(self, wire) except -1
    cdef bint are_plain(self, Work *work) noexcept
    cdef bint is_late(self, Work *work, int64_t began_ns) noexcept
    cdef object travel(self, Work *work, list wires, list buffers, int64_t began_ns)
