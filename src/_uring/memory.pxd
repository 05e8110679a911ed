"""The Buffer, and the memory that it is in."""

from _uring.arenas cimport PAGE, Arenas, Block


cdef enum:
    # Who may look at a Buffer's memory: anybody to read; the one view being made, to write; only that view.
    KEPT = 0
    OFFERED = 1
    LENT = 2


cdef class Memory(Arenas):
    cdef Buffer allocate(self, size_t size)


cdef class Buffer:
    cdef Memory memory
    cdef Block *block
    cdef char *data
    cdef Py_ssize_t bytes
    cdef Py_ssize_t extent[2]
    cdef Py_ssize_t stride[2]
    cdef int dimensions
    cdef int exports
    cdef int lending
    cdef bint unfinished  # nobody has seen the bytes, and whoever made it may write them

    cdef void resize(self, Py_ssize_t shift, Py_ssize_t size) noexcept
    cdef void tabulate(self, Py_ssize_t count, Py_ssize_t length) noexcept
    cdef Buffer view(self, Py_ssize_t start, Py_ssize_t size)
    cdef int check_usable(self) except -1
    cdef hand_over(self, numpy, dtype)
    cdef offer(self)
    cdef default_shape(self, Py_ssize_t itemsize)
