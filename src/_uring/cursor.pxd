"""The types of cursor.py, for compiling it."""

cdef class Cursor:
    cdef object read_into
    cdef object find_end
    cdef long long start
    cdef long long stop
    cdef long long buffer_size
    cdef long long at
    cdef long long expected
    cdef long long first
    cdef long long span
    cdef long long wanted
    cdef bint closed
