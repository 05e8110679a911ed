"""The kinds of read: the requests of each, and how its result is built."""

from libc.stdint cimport int64_t

from _uring.memory cimport Buffer
from _uring.open_file cimport Descriptor, OpenFile
from _uring.request cimport Batch
from _uring.residency cimport Residency


cdef class FileRead(Batch):
    cdef OpenFile file
    cdef Descriptor plain
    cdef Descriptor source
    cdef Residency residency
    cdef int64_t size
    cdef bint direct
    cdef int64_t border
    cdef bint strict

    cdef int begin(self, OpenFile file, Descriptor plain, Py_ssize_t count, object start, object want) except -1
    cdef int queue(self, char *data, int64_t start, int64_t length) except -1
    cdef int check_failure(self) except -1
    cdef tuple asked_by(self, Py_ssize_t request)
    cdef int account(self, Py_ssize_t reads, int64_t asked, int64_t fetched) except -1
    cdef void choose_depth(self, int concurrent) noexcept
    cdef int go_past_cache(self, int64_t start, int64_t length) except -1
    cdef void note_order(self) noexcept
    cdef void use_mapping(self) noexcept


cdef class ReadAt(FileRead):
    cdef int64_t start
    cdef int64_t want
    cdef int64_t length
    cdef Buffer buffer
    cdef Py_ssize_t index


cdef class ReadInto(FileRead):
    cdef int64_t start
    cdef int64_t want
    cdef int64_t length


cdef class ReadMany(FileRead):
    cdef const int64_t[::1] starts
    cdef const int64_t[::1] lengths
    cdef list buffers
    cdef Py_ssize_t *firsts

    cdef list results(self)
    cdef int long_ranges_past_cache(self) except -1


cdef class ReadBatch(FileRead):
    cdef const int64_t[::1] offsets
    cdef int64_t length
    cdef Buffer table

    cdef int refuse(self, Py_ssize_t index, int64_t size) except -1
    cdef int queue_records(self) except -1


cdef class ReadBounced(ReadMany):
    cdef Buffer table
    cdef int64_t length


cdef ReadAt read_at(OpenFile file, int64_t start, int64_t want, Descriptor plain=*)
cdef ReadInto read_into(OpenFile file, object view, int64_t start)
cdef ReadMany read_many(OpenFile file, object starts, object lengths, int concurrent)
cdef FileRead read_batch(OpenFile file, object offsets, int64_t length)
