"""A file mapped into memory, out of which hot reads are copied instead of asking the kernel for each.

What may go wrong with a mapping, and what is done about it:

- a page that is not there is read from the device, one after the other: only pages are touched that a sweep has found in
  the page cache (`see`). If copies had to wait for a device all the same, the pages were reclaimed: everything seen is
  forgotten, and the file is swept for some time (`forget`);
- the file is cut short: the copy ends there (guard.h), and what is missing is read as if there were no mapping. The zeros that
  lie between the new end and the border of its page have to be told by the pin, so only pinned files are mapped;
- memory: what is mapped counts as resident (RssFile) although it is the page cache's. It is bounded for the process.
"""

import os

from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.mman cimport MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, madvise, mmap, mprotect, munlock, munmap

from _uring.filesystems cimport has_mappable_pages

cdef extern from "guard.h" nogil:
    struct rangeio_piece:
        pass
    int rangeio_guard_works()
    size_t rangeio_copy_guarded(const rangeio_piece *pieces, size_t count, const char *low, size_t size)
    long rangeio_major_faults()
    int MADV_DONTNEED

# Whether files are mapped at all: RANGEIO_MAPPED=0 has them read by system calls only.
enabled = os.environ.get("RANGEIO_MAPPED", "1") not in ("", "0")

# The kernel maps so much around a page that is touched, if it is in the page cache (fault_around_bytes).
cdef int BLOCK_BITS = 16
cdef int UNIT_BITS = 12
# A bit for each 4 KiB: 32 MiB for the largest.
cdef int64_t LARGEST = 1 << 40
# Batches that are swept after pages were reclaimed: doubled each time, halved after so many batches without.
cdef int64_t LEAST_REST = 32
cdef int64_t MOST_REST = 1 << 16
cdef int64_t MORE_TRUST = 1024

# Blocks seen, of all files of the process, and how many there may be: half of the machine's memory.
cdef int64_t blocks_seen = 0
cdef int64_t drops = 0
cdef int64_t most_blocks = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 >> BLOCK_BITS


cdef Py_ssize_t copy_pieces(MapState *state, Piece *pieces, Py_ssize_t count, long *faults) noexcept nogil:
    """How many were copied. faults: of the thread, before and after; more of them, or a piece not copied, spoil the mapping."""
    cdef Py_ssize_t copied = rangeio_copy_guarded(<rangeio_piece *>pieces, count, state.base, state.size)
    cdef long now = rangeio_major_faults()
    if copied < count or now != faults[0]:
        state.spoiled = 1
    faults[0] = now
    return copied


cdef long major_faults() noexcept nogil:
    return rangeio_major_faults()


cdef dict mapping_stats():
    """Of the whole process: what of mapped files it may have resident, and how often a mapping was given up for some time."""
    return {"file_bytes_mapped": blocks_seen << BLOCK_BITS, "mapped_drops": drops}


cdef Mapping mapping_of(int fd, int64_t size):
    """The mapping of a regular file, made at its first use; None where there is to be none."""
    cdef Mapping mapping
    if not enabled or not 0 < size <= LARGEST or not has_mappable_pages(fd, size):
        return None
    mapping = Mapping()
    mapping.state.size = size
    mapping.state.seen = <uint16_t *>calloc((size >> BLOCK_BITS) + 1, sizeof(uint16_t))
    if mapping.state.seen == NULL:
        return None
    return mapping


cdef char *map_file(int fd, size_t size) noexcept nogil:
    # Private: a shared one of a descriptor that may write would keep others from sealing the file (fcntl(2)). Without access at
    # first: after mlockall(MCL_FUTURE) all of a file that may be read would be read here, and stay in memory.
    cdef void *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE, fd, 0)
    if base == MAP_FAILED:
        return <char *>base
    munlock(base, size)
    if mprotect(base, size, PROT_READ) != 0:
        munmap(base, size)
        return <char *>MAP_FAILED
    return <char *>base


cdef class Mapping:
    """All is changed with the GIL held, but for `spoiled`. Who copies holds a reference."""

    def __cinit__(self):
        self.rest = LEAST_REST

    def __dealloc__(self):
        global blocks_seen
        blocks_seen -= self.blocks
        if self.state.base != NULL:
            with nogil:
                munmap(self.state.base, self.state.size)
        free(self.state.seen)

    cdef bint ready(self, int fd):
        """Whether a batch may copy out of it now."""
        cdef char *base
        if self.state.spoiled:
            self.forget()
        if self.resting:
            self.resting -= 1
            return False
        if self.blocks == 0 or not rangeio_guard_works():
            return False
        if self.state.base == NULL:
            with nogil:
                base = map_file(fd, self.state.size)
            if base == <char *>MAP_FAILED:
                self.resting = MOST_REST  # RLIMIT_AS, say
                return False
            if self.state.base != NULL:
                munmap(base, self.state.size)  # another thread was faster
            else:
                self.state.base = base
        self.batches += 1
        if self.batches % MORE_TRUST == 0:
            self.rest = max(self.rest // 2, LEAST_REST)
        return True

    cdef void see(self, int64_t offset, size_t length) noexcept:
        """These bytes have just been read out of the page cache."""
        global blocks_seen
        cdef int64_t unit = offset >> UNIT_BITS
        cdef int64_t last = (offset + <int64_t>length - 1) >> UNIT_BITS
        if offset + <int64_t>length > self.state.size:
            return
        while unit <= last:
            if self.state.seen[unit >> 4] == 0:
                if blocks_seen >= most_blocks:
                    return
                blocks_seen += 1
                self.blocks += 1
            self.state.seen[unit >> 4] |= 1 << (unit & 15)
            unit += 1

    cdef int forget(self) except -1:
        """Pages were reclaimed, or the file was cut: touch none of it until it has been seen again."""
        global blocks_seen, drops
        drops += 1
        blocks_seen -= self.blocks
        self.blocks = 0
        memset(self.state.seen, 0, ((self.state.size >> BLOCK_BITS) + 1) * sizeof(uint16_t))
        self.state.spoiled = 0
        self.resting = self.rest
        self.rest = min(2 * self.rest, MOST_REST)
        with nogil:
            madvise(self.state.base, self.state.size, MADV_DONTNEED)
        return 0
