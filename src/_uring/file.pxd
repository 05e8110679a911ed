"""The public face of one open file."""

from libc.stdint cimport int64_t

from _uring.memory cimport Buffer
from _uring.open_file cimport Descriptor, OpenFile
from _uring.reads cimport FileRead


cdef class File(OpenFile):
    cdef int fd
    cdef bint inline_reads
    cdef public object again
    cdef object __weakref__

    cdef int64_t fill_inline(self, object destination, int64_t start) except? -1
    cdef int count_hit(self, Descriptor plain, int64_t start, int64_t bytes) except -1
    cdef Buffer read_inline(self, int64_t start, int64_t want, bint waits)
    cdef int64_t read_here(self, char *data, int64_t start, int64_t want, bint waits) except? -2
    cdef int64_t read_untold(self, char *data, int64_t start, int64_t want, bint waits) except? -2
    cdef int64_t copy_cached(self, Descriptor plain, char *data, int64_t start, int64_t want) except? -2
    cdef object run(self, FileRead read)
    cdef object run_async(self, FileRead read)
    cdef int begin_read(self, FileRead read, object waiter) except -1
    cdef object grow_async(self, int64_t start, int64_t want)
    cdef Buffer read_growing(self, int64_t start, int64_t want)
    cdef Buffer joined(self, list parts, int64_t total)


cdef class Growing:
    cdef File file
    cdef Descriptor plain
    cdef object waiter
    cdef list parts
    cdef int64_t start
    cdef int64_t want
    cdef int64_t total
    cdef int64_t asked
    cdef bint beginning
    cdef bint landed
    cdef bint ended

    cdef int go_on(self) except -1
    cdef bint begin_pieces(self) except -1
