"""One open file: descriptors, identity, alignment."""

from libc.stdint cimport int64_t, uint64_t

from _uring.engine cimport Engine
from _uring.mapping cimport Mapping
from _uring.residency cimport Residency

cdef int64_t SMALL
cdef int64_t CHECK_EVERY_NS
cdef int64_t bypass_from


cdef class Descriptor:
    cdef Engine engine
    cdef readonly int fd
    cdef bint first
    cdef bint owned
    cdef bint touched
    cdef bint closed

    cdef void touch(self) noexcept


cdef class Identity:
    cdef uint64_t device
    cdef uint64_t inode
    cdef int64_t size
    cdef int64_t mtime_ns
    cdef uint64_t mode

    cdef int read(self, int fd) except -1
    cdef bint is_of(self, void *seen) noexcept
    cdef str difference(self, Identity now)


cdef class OpenFile:
    cdef Engine engine
    cdef readonly str path
    cdef Descriptor plain
    cdef Descriptor scattered
    cdef Descriptor straight
    cdef bint pin
    cdef bint synthetic
    cdef Identity identity
    cdef int64_t checked_ns
    cdef Descriptor bypassing
    cdef bint may_bypass
    cdef int64_t border
    cdef int64_t memory_alignment
    cdef int way
    cdef uint64_t attributes
    cdef Residency residency
    cdef int prompt
    cdef bint may_map
    cdef Mapping mapping
    cdef readonly int alignment
    cdef readonly str direct_reason

    cdef bint identify(self) except -1
    cdef bint may_misreport_size(self) noexcept
    cdef bint has_bytes_past_size(self) except -1
    cdef int start_direct(self, object wanted) except -1
    cdef Descriptor held(self)
    cdef int64_t trusted_size(self, Descriptor plain, object start, object want) except -2
    cdef int64_t verify(self, Descriptor plain, object offset, object limit) except -2
    cdef int came_short(self, Descriptor plain, int64_t start, int64_t want, int64_t got) except -1
    cdef int how(self, Descriptor plain) noexcept
    cdef Descriptor bypass(self, Descriptor plain, int64_t start, int64_t length)
    cdef Residency known(self, Descriptor plain)
    cdef bint has_cached(self, Descriptor plain, int64_t start, int64_t length) except -1
    cdef int look(self, Descriptor plain, void *answer)
    cdef Mapping hot_mapping(self, Descriptor plain)
    cdef Descriptor source(self, Descriptor plain, Py_ssize_t count)
    cdef void drop(self) noexcept
