"""A file mapped into memory, and what of it is known to be in the page cache."""

from libc.stdint cimport int64_t, uint16_t


cdef struct Piece:
    char *to
    const char *source
    size_t length


cdef struct MapState:
    # What copies need of a Mapping, without the GIL. `seen` has a bit for each unit of 4 KiB, a word for each block of 64.
    char *base
    int64_t size
    uint16_t *seen
    int spoiled


cdef class Mapping:
    cdef MapState state
    cdef int64_t blocks
    cdef int64_t rest
    cdef int64_t resting
    cdef int64_t batches

    cdef bint ready(self, int fd)
    cdef void see(self, int64_t offset, size_t length) noexcept
    cdef int forget(self) except -1


cdef Mapping mapping_of(int fd, int64_t size)
cdef Py_ssize_t copy_pieces(MapState *state, Piece *pieces, Py_ssize_t count, long *faults) noexcept nogil
cdef long major_faults() noexcept nogil
cdef dict mapping_stats()


cdef inline bint is_seen(MapState *state, int64_t offset, size_t length) noexcept nogil:
    """Whether all of these bytes were in the page cache when they were read last."""
    cdef int64_t unit = offset >> 12
    cdef int64_t last = (offset + <int64_t>length - 1) >> 12
    if offset + <int64_t>length > state.size:
        return False
    while unit <= last:
        if not state.seen[unit >> 4] >> (unit & 15) & 1:
            return False
        unit += 1
    return True
