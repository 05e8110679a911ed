"""The public face of one open file."""

from libc.stdint cimport int64_t

from _uring.memory cimport Buffer
from _uring.opened cimport Descriptor, Opened
from _uring.reads cimport FileRead


cdef class File(Opened):
    cdef int fd
    cdef bint inline_reads
    cdef object __weakref__

    cdef int64_t fill_inline(self, object destination, int64_t start) except? -1
    cdef int count_hit(self, Descriptor plain, int64_t start, int64_t bytes) except -1
    cdef Buffer read_inline(self, int64_t start, int64_t want)
    cdef object run(self, FileRead read)
    cdef object run_async(self, FileRead read)
    cdef Buffer read_growing(self, int64_t start, int64_t want)
