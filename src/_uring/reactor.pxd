"""The public face of the core."""

from _uring.engine cimport Engine


cdef class Reactor:
    cdef Engine engine
    cdef tuple tried
    cdef bint shut
