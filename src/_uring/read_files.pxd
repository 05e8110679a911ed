"""Many files, each opened, read and closed once."""

from libc.stdint cimport int64_t

from _uring.engine cimport Engine
from _uring.workers cimport Step


cdef struct Visit:
    const char *path
    char *data
    int64_t start
    int64_t want
    int64_t got
    int64_t room
    int fd
    int error
    int refusal
    int pin
    int to_end
    int done
    int64_t needed
    Py_ssize_t *kept
    int64_t size
    int64_t mtime_ns


cdef class Visits:
    cdef Engine engine
    cdef Visit *visits
    cdef Py_ssize_t count
    cdef list names
    cdef list buffers
    cdef int64_t guess
    cdef Py_ssize_t kept
    cdef Py_ssize_t late
    cdef bint grow

    cdef list run(self)
    cdef Py_ssize_t next_window(self, Py_ssize_t window) noexcept
    cdef Py_ssize_t room_for_late(self, Py_ssize_t first, Py_ssize_t stop) except -1
    cdef int read_window(self, list indices, list results) except -1
    cdef int make_room(self, Py_ssize_t index, int64_t size) except -1
    cdef void guess_from(self, Py_ssize_t first, Py_ssize_t stop) noexcept
    cdef visit(self, Py_ssize_t first, Py_ssize_t stop)
