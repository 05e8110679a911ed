"""One connection, and the request and reply that are under way on it; several of them, watched together."""

from libc.stdint cimport int64_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
        unsigned int u32
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int most, int timeout_ms)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL
    int EPOLLIN


# What came of a look at a line, and of all of them.
cdef enum:
    WAITING
    DONE
    ODD
    LOOK

# A line on which nothing is under way; one that is of no use any more.
cdef enum:
    IDLE = -1
    GONE = -2


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


# What several lines work on: ranges up to `ranges`, of which those below `placed` have memory, and those below `begun` were
# asked for. landed: what has, if it is taken one by one; else the next is begun at once.
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
    Py_ssize_t placed
    Py_ssize_t ranges
    Py_ssize_t *landed
    int landings
    int64_t look_ns


cdef int put_form(Form *form, tuple texts, tuple masks, tuple order) except -1
cdef int put_line(Line *line, wire) except -1
cdef bint begin(Line *line, const Form *request, const Form *reply, Py_ssize_t index, int64_t start, int64_t length, char *body) noexcept nogil
cdef int receive_all(Line *line) noexcept nogil
cdef bint next_on(Work *work, Line *line) noexcept nogil
cdef int work_on(Work *work, int timeout_ms) noexcept nogil
cdef tuple told(Line *line, wire, into, int64_t since_ns, int64_t start)
