"""Copies of what the page cache has."""

from _uring.request cimport Batch, Group

cdef enum:
    STRIDE = 32

cdef void sweep_span(Group *group, Py_ssize_t first, Py_ssize_t stop) noexcept nogil
cdef void sweep_each(Group *group, Py_ssize_t index) noexcept nogil
cdef void sweep_stride(Group *group, Py_ssize_t index) noexcept nogil
cdef int begin_sweep(Batch batch) except -1
cdef Py_ssize_t end_sweep(Batch batch) except -1
