"""Connected TCP sockets, and those of them that are idle."""

from libc.stdint cimport int64_t

cdef enum:
    # Maximum bytes of a response head. `space` has one byte more.
    HEAD_ROOM = 8192


cdef class Connection:
    cdef readonly int fd
    # Response heads are received here. Its size is fixed.
    cdef readonly bytearray space
    cdef char *head
    cdef Py_buffer view
    cdef int64_t idle_ns
    cdef int64_t wait_ns
    cdef public bint used
    cdef public bint absolute

    cdef bint brings_nothing(self) noexcept nogil
    cdef int wait_for(self, int64_t ns) except -1


cdef class IdleConnections:
    cdef list connections
    cdef public bint wanted

    cdef Connection take_quiet(self, bint absolute)
    cdef bint put(self, Connection connection) except -1
