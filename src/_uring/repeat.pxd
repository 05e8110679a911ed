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


# What several lines work on. landed: what has, if it is taken one by one; else the next is begun at once.
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
    Py_ssize_t *landed
    int landings
    int64_t look_ns


cdef class Repeat:
    cdef Memory memory
    cdef object pool, idle, tick_s, asked, answered
    cdef tuple texts
    cdef Form request, reply
    cdef int64_t size, most, until_ns, tick_ns, total_ns

    cdef object ask(self, wire, int64_t start, int64_t count, char *place, into)
    cdef Convoy convoy(self, starts, lengths, Py_ssize_t concurrent)
    cdef list take(self, Py_ssize_t count)
    cdef int give(self, wire) except -1


cdef class Convoy:
    cdef Repeat repeat
    cdef Work work
    cdef Py_buffer views[2]
    cdef int viewed
    cdef tuple arrays
    cdef list wires, buffers
    cdef int64_t began_ns
    cdef int forks
    cdef Py_ssize_t given
    cdef int taken
    cdef int64_t left_ns
    cdef bint odd

    cdef bint is_plain(self) noexcept
    cdef int couple(self) except -1
    cdef int place(self, Py_ssize_t index) except -1
    cdef object run(self)
    cdef Convoy one_by_one(self)
    cdef int refill(self) except -1
    cdef int wait(self) except -1
    cdef bint is_late(self) noexcept
    cdef list uncouple(self, bint hand_over)
