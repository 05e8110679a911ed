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
    cdef int long_ranges_past_cache(self, int64_t first, int64_t last, int64_t total, Py_ssize_t count) except -1
    cdef void note_order(self) noexcept
    cdef void use_mapping(self) noexcept


cdef class ReadAt(FileRead):
    cdef int64_t start
    cdef int64_t want
    cdef int64_t length
    cdef Buffer buffer
    cdef Py_ssize_t index


cdef class ReadMany(FileRead):
    cdef const int64_t[::1] starts
    cdef const int64_t[::1] lengths
    cdef list buffers
    cdef Py_ssize_t *firsts

    cdef list results(self)
    cdef int past_cache_if_long(self) except -1


cdef class ReadBatch(FileRead):
    cdef const int64_t[::1] offsets
    cdef int64_t length
    cdef char *data
    cdef Py_ssize_t nbytes
    cdef object table

    cdef int refuse(self, Py_ssize_t index, int64_t size) except -1
    cdef int queue_records(self) except -1


cdef class ReadBounced(ReadMany):
    cdef char *data
    cdef object table
    cdef int64_t length


cdef ReadAt read_at(OpenFile file, int64_t start, int64_t want, Descriptor plain=*)
cdef ReadMany read_many(OpenFile file, object starts, object lengths, int concurrent)
cdef FileRead read_batch(OpenFile file, object offsets, int64_t length, object view, object out)


cdef inline int64_t clamp(int64_t start, int64_t length, int64_t size) noexcept:
    """The bytes of a range that lie in the file."""
    return min(length, max(<int64_t>0, size - start))


cdef inline int64_t aligned_span(int64_t start, int64_t length, int64_t border) noexcept:
    """Bytes from the aligned offset at or below `start` to the one at or above its end. (100, 50, 512) -> 512."""
    cdef int64_t span = start % border + length
    return span + (border - span % border) % border if length else 0
