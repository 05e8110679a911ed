"""The public face of one open file."""

from libc.stdint cimport int64_t

from _uring.memory cimport Buffer
from _uring.opened cimport Opened
from _uring.reads cimport FileRead


cdef class File(Opened):
    cdef int fd
    cdef bint inline_reads
    cdef object __weakref__

    cdef Buffer read_inline(self, int64_t start, int64_t want)
    cdef object run(self, FileRead read)
    cdef Buffer read_growing(self, int64_t start, int64_t want)
