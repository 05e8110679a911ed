"""The Buffer and its memory."""

from _uring.arenas cimport PAGE, Arenas, Block


cdef enum:
    # Access to a Buffer's memory. KEPT: read-only views. OFFERED: the view being made may write. LENT: no access but that view.
    KEPT = 0
    OFFERED = 1
    LENT = 2


cdef class Memory(Arenas):
    cdef Buffer allocate(self, size_t size)


cdef class Buffer:
    cdef object __weakref__
    cdef Memory memory
    cdef Block *block
    cdef char *data
    cdef Py_ssize_t bytes
    cdef Py_ssize_t extent[2]
    cdef Py_ssize_t stride[2]
    cdef int dimensions
    cdef int exports
    cdef int lending
    cdef bint unfinished  # no bytes were read yet, so its creator may still write them

    cdef void resize(self, Py_ssize_t shift, Py_ssize_t size) noexcept
    cdef void tabulate(self, Py_ssize_t count, Py_ssize_t length) noexcept
    cdef Buffer view(self, Py_ssize_t start, Py_ssize_t size)
    cdef int check_usable(self) except -1
    cdef hand_over(self, numpy, dtype)
    cdef offer(self)
    cdef default_shape(self, Py_ssize_t itemsize)
