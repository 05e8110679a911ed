"""Which bytes of a file are in the page cache, where no read can be made that does not wait.

mincore(2) tells, of a mapping: overlayfs maps the file below it, while cachestat(2) looks at the overlay's own file, which has
no pages. To ask costs as much as to read 4 KiB. So it is asked for a block at once, and a block that is cached as a whole is
believed to be so for a moment: what is evicted meanwhile costs whoever reads it a wait for the device.

Nobody touches the mapping; it has no access rights, so that no page is ever loaded for it (mlockall(2) neither).
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_NONE, mmap, munmap

from _uring.process cimport coarse_clock_ns, page_size

cdef extern from * nogil:
    """
    #include <sys/mman.h>

    #define rangeio_get(place) __atomic_load_n(place, __ATOMIC_RELAXED)
    #define rangeio_put(place, value) __atomic_store_n(place, value, __ATOMIC_RELAXED)
    """
    int mincore(void *place, size_t bytes, unsigned char *pages)
    uint64_t rangeio_get(uint64_t *place)
    void rangeio_put(uint64_t *place, uint64_t value)

# Asked about at once: 5 us, where 4 KiB are 1.
cdef int BLOCK_BITS = 18
cdef enum:
    BLOCK = 1 << 18
    MOST_PAGES = BLOCK >> 12
# What is remembered of a block: its number and one of these, and below them when it was asked about, in ms.
cdef uint64_t PART = 1 << 30
cdef uint64_t WHOLE = 1 << 31
# How long an answer is believed.
cdef uint32_t BELIEVED_MS = 250
# Blocks remembered of a file: 1 GiB in 32 KiB of memory.
cdef int64_t MOST_BLOCKS = 4096
# Pages of a range that are asked about to estimate how much of it is cached.
cdef int64_t SAMPLE = 256
# Files mapped at a time; a process may have 65530 mappings (vm.max_map_count).
cdef int MOST_FILES = 1024

cdef int files_mapped = 0


cdef bint is_cached(Cached *file, int64_t start, int64_t length) noexcept nogil:
    """Whether all of a range is in the page cache now, or was a moment ago. False where that is not known."""
    cdef uint64_t block = <uint64_t>start >> BLOCK_BITS
    cdef uint64_t last = <uint64_t>(start + length - 1) >> BLOCK_BITS
    cdef uint64_t seen
    cdef uint32_t now
    cdef bint recent
    if length <= 0 or start > file.bytes - length:
        return False
    now = <uint32_t>(coarse_clock_ns() // 1000000)
    while block <= last:
        seen = rangeio_get(&file.seen[block & file.mask])
        recent = now - <uint32_t>seen <= BELIEVED_MS
        if not (recent and seen >> 32 == WHOLE | block):
            if not look(file, block, start, start + length, recent and seen >> 32 == PART | block, now):
                return False
        block += 1
    return True


cdef bint look(Cached *file, uint64_t block, int64_t start, int64_t stop, bint again, uint32_t now) noexcept nogil:
    """Ask about a block; whether what lies between start and stop is cached of it. All of it only where it is read again."""
    cdef unsigned char[MOST_PAGES] pages
    cdef int64_t place = <int64_t>block * BLOCK
    cdef int64_t end = min(place + BLOCK, file.bytes)
    cdef bint whole = again
    cdef int64_t i
    if not again:
        place = max(place, start // page_size * page_size)
        end = min(end, stop)
    if mincore(file.mapping + place, end - place, pages) != 0:
        return False
    for i in range((end - place + page_size - 1) // page_size):
        if not pages[i] & 1:
            whole = False
            if place + (i + 1) * page_size > start and place + i * page_size < stop:
                return False
    rangeio_put(&file.seen[block & file.mask], ((WHOLE if whole else PART) | block) << 32 | now)
    return True


cdef double cached_share(int fd, int64_t start, int64_t length) noexcept nogil:
    """The share of a range that is in the page cache, from a sample of its pages; 1 where it is not known. Some 200 us."""
    cdef int64_t first = start // page_size * page_size
    cdef int64_t bytes = start + length - first
    cdef int64_t step = max(1, bytes // page_size // SAMPLE), page = 0
    cdef int asked = 0, found = 0
    cdef unsigned char state
    cdef char *mapping = <char *>mmap(NULL, bytes + page_size, PROT_NONE, MAP_SHARED, fd, first)
    if mapping == <char *>MAP_FAILED:
        return 1
    while page * page_size < bytes:
        if mincore(mapping + page * page_size, 1, &state) != 0:
            found = asked = 1
            break
        asked += 1
        found += state & 1
        page += step
    munmap(mapping, bytes + page_size)
    return <double>found / asked


cdef class Residency:
    """What `is_cached` asks about one open file; of one that the kernel does not tell about, it says False."""

    def __cinit__(self, int fd, int64_t size):
        global files_mapped
        cdef int64_t bytes = (size + page_size - 1) // page_size * page_size
        cdef uint64_t blocks = 1
        cdef void *mapping
        if bytes == 0 or bytes >= <int64_t>1 << 47 or page_size < 4096 or files_mapped >= MOST_FILES:
            return
        while <int64_t>blocks * BLOCK < bytes and <int64_t>blocks < MOST_BLOCKS:
            blocks *= 2
        # A page more than there is, for `is_told`.
        mapping = mmap(NULL, bytes + page_size, PROT_NONE, MAP_SHARED, fd, 0)
        if mapping == MAP_FAILED:
            return
        if is_told(<char *>mapping + bytes):
            self.cached.seen = <uint64_t *>calloc(blocks, sizeof(uint64_t))
        if self.cached.seen == NULL:
            munmap(mapping, bytes + page_size)
            return
        self.cached.mapping, self.cached.mask, self.cached.bytes = <char *>mapping, blocks - 1, bytes
        files_mapped += 1

    def __dealloc__(self):
        global files_mapped
        if self.cached.seen != NULL:
            munmap(self.cached.mapping, self.cached.bytes + page_size)
            free(self.cached.seen)
            files_mapped -= 1


cdef bint is_told(char *beyond) noexcept:
    """Whether mincore says the truth: to who neither owns the file nor may write to it, it says that every page is cached,
    even one behind the end of the file (Linux 5.0, against spying on others through the cache).
    """
    cdef unsigned char page
    return mincore(beyond, page_size, &page) == 0 and not page & 1
