"""The memory that reads write to: arenas of huge pages, divided into blocks of fixed size classes.

Fresh memory costs more than reading a cached file: the kernel provides new pages at 0.5-2 GB/s, and copies into touched
pages at 10-15 GB/s. So blocks are recycled, last used first, and arenas use 2 MiB pages (`madvise(MADV_HUGEPAGE)` before
the first touch: MAP_POPULATE first would give 4 KiB pages). Huge pages also cut the CPU time of O_DIRECT to a fifth.

All structures here are changed with the GIL held, and never while a read is in flight on the block concerned, so there is
no lock. The kernel writes to a block only while a Batch holds its Buffer (request.pyx). Only `Buffer.__dealloc__` (memory.pyx)
and `Buffer.release` free a block.

In debug builds, and with RANGEIO_POISON=1, allocated memory is filled with one pattern and freed memory with another
(poison.h). AddressSanitizer reports access to freed memory, and to bytes of a block beyond the requested size.
"""

import os

cimport cython
from libc.stdlib cimport calloc, free
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap

from _uring.poison import ALLOCATED, FREED, poisons

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_HUGEPAGE
    #define MADV_HUGEPAGE 14
    #endif
    #define RANGEIO_POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, Linux 5.14 */
    """
    int MADV_HUGEPAGE
    int RANGEIO_POPULATE_WRITE

cdef extern from "poison.h":
    bint RANGEIO_IS_DEBUG, rangeio_poison
    uint8_t rangeio_allocated_byte, rangeio_freed_byte
    void rangeio_allow(char *place, size_t size)
    void rangeio_mark_freed(char *place, size_t size)
    int rangeio_mark_allocated(char *place, size_t size, size_t whole)

rangeio_poison = poisons(RANGEIO_IS_DEBUG)
rangeio_allocated_byte, rangeio_freed_byte = ALLOCATED, FREED

# Steps of at most 1.5x waste a third at worst. All sizes are whole pages, as O_DIRECT requires.
cdef size_t[CLASSES] class_size
class_size[:] = [k << 10 for k in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)]
cdef uint8_t[513] class_of_pages  # HUGE / PAGE + 1


cdef void fill_class_table() noexcept:
    cdef int pages, size_class = 0
    for pages in range(HUGE // PAGE + 1):
        while class_size[size_class] < <size_t>pages * PAGE:
            size_class += 1
        class_of_pages[pages] = size_class


fill_class_table()

# Blocks up to this size serve small reads. Without prefaulting, the first touch would dominate their latency.
cdef size_t PREFAULT_BELOW = 64 << 10


def default_pool_bytes():
    """An eighth of the machine's memory, at most 2 GiB."""
    return min(2 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


cdef char *map_pages(size_t size, bint prefault) noexcept nogil:
    """Map `size` bytes (a multiple of 2 MiB), aligned to 2 MiB, and backed by huge pages if the kernel has some."""
    cdef char *raw = <char *>mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    cdef char *base
    cdef size_t head, at = 0
    if raw == <char *>MAP_FAILED:
        return NULL
    head = (HUGE - <size_t>raw % HUGE) % HUGE
    base = raw + head
    if head:
        munmap(raw, head)
    munmap(base + size, HUGE - head)
    madvise(base, size, MADV_HUGEPAGE)
    if prefault and madvise(base, size, RANGEIO_POPULATE_WRITE) != 0:
        while at < size:
            base[at] = 0
            at += PAGE
    return base


@cython.no_gc
cdef class Arenas:
    """The memory of one reactor. `pool_bytes` bounds the free memory kept for reuse, not the memory in use."""

    def __cinit__(self, size_t pool_bytes):
        self.pool_bytes = pool_bytes

    def __dealloc__(self):
        # Every Buffer holds a reference to this object, so no block is in use: all arenas are free.
        cdef int size_class
        cdef Arena *arena
        for size_class in range(CLASSES):
            while self.partial[size_class] != NULL:
                arena = self.partial[size_class]
                unlink(&self.partial[size_class], arena)
                self.unmap(arena)
        while self.retained != NULL:
            arena = self.retained
            unlink(&self.retained, arena)
            self.unmap(arena)

    @property
    def bytes_pooled(self):
        return self.bytes_mapped - self.bytes_live

    cdef Block *take(self, size_t size) except NULL:
        """A page-aligned block of at least `size` bytes."""
        cdef int size_class
        cdef Arena *arena
        cdef Block *block
        if size > HUGE:
            return self.take_large(size)
        size_class = class_of_pages[(size + PAGE - 1) // PAGE]
        arena = self.partial[size_class]
        if arena == NULL:
            arena = self.map_arena(HUGE, class_size[size_class], size_class)
            link(&self.partial[size_class], arena)
        block = arena.free
        self.mark_allocated(block, size)
        arena.free = block.next
        arena.live += 1
        if arena.free == NULL:
            unlink(&self.partial[size_class], arena)
        block.views = 1
        self.bytes_live += arena.block_size
        self.buffers_live += 1
        return block

    cdef Block *take_large(self, size_t size) except NULL:
        """The smallest retained arena that fits and wastes at most a quarter, else a new one."""
        cdef size_t whole = (size + HUGE - 1) // HUGE * HUGE
        cdef Arena *best = NULL
        cdef Arena *arena = self.retained
        if whole < size:
            raise MemoryError(f"cannot allocate {size} bytes for a read")
        while arena != NULL:
            if whole <= arena.size <= whole + whole // 4 and (best == NULL or arena.size < best.size):
                best = arena
            arena = arena.next
        if best == NULL:
            best = self.map_arena(whole, whole, CLASSES)
        self.mark_allocated(&best.blocks[0], size)
        if best.listed:
            unlink(&self.retained, best)
        best.live = 1
        best.blocks[0].views = 1
        self.bytes_live += best.size
        self.buffers_live += 1
        return &best.blocks[0]

    cdef void give(self, Block *block) noexcept:
        """Drop one view of a block; the last one frees it."""
        cdef Arena *arena = block.arena
        block.views -= 1
        self.buffers_live -= 1
        if block.views:
            return
        rangeio_mark_freed(block.base, arena.block_size)
        arena.live -= 1
        self.bytes_live -= arena.block_size
        if arena.size_class == CLASSES:
            self.give_large(arena)
            return
        block.next = arena.free
        arena.free = block
        if not arena.listed:
            link(&self.partial[arena.size_class], arena)
        if arena.live == 0 and self.bytes_mapped - self.bytes_live > self.pool_bytes:
            unlink(&self.partial[arena.size_class], arena)
            self.unmap(arena)

    cdef void give_large(self, Arena *arena) noexcept:
        cdef Arena *oldest
        link(&self.retained, arena)
        while self.retained != NULL and self.bytes_mapped - self.bytes_live > self.pool_bytes:
            oldest = self.retained
            while oldest.next != NULL:
                oldest = oldest.next
            unlink(&self.retained, oldest)
            self.unmap(oldest)

    cdef Arena *map_arena(self, size_t size, size_t block_size, int size_class) except NULL:
        cdef uint32_t count = <uint32_t>(size // block_size)
        cdef Arena *arena = <Arena *>calloc(1, sizeof(Arena))
        cdef char *base = NULL
        cdef uint32_t i
        if arena != NULL:
            arena.blocks = <Block *>calloc(count, sizeof(Block))
        if arena != NULL and arena.blocks != NULL:
            with nogil:  # mapping and first touch may take milliseconds; this block changes nothing of `self`
                base = map_pages(size, block_size <= PREFAULT_BELOW)
        if base == NULL:
            if arena != NULL:
                free(arena.blocks)
            free(arena)
            raise MemoryError(f"cannot map {size} bytes for reads; {self.bytes_live} bytes are held by live Buffers")
        arena.base, arena.size, arena.block_size = base, size, block_size
        arena.count, arena.size_class = count, size_class
        for i in range(count):
            arena.blocks[i].base = base + i * block_size
            arena.blocks[i].arena = arena
            arena.blocks[i].next = &arena.blocks[i + 1] if i + 1 < count else NULL
        arena.free = arena.blocks
        self.bytes_mapped += size
        rangeio_mark_freed(base, size)
        return arena

    cdef int mark_allocated(self, Block *block, size_t size) except -1:
        """Allow the use of the first `size` bytes of a block."""
        if rangeio_mark_allocated(block.base, size, block.arena.block_size) != 0:
            raise SystemError(f"a block of {block.arena.block_size} bytes was written to after it was freed")
        return 0

    cdef void unmap(self, Arena *arena) noexcept:
        rangeio_allow(arena.base, arena.size)  # the addresses may be mapped by other code next
        munmap(arena.base, arena.size)
        self.bytes_mapped -= arena.size
        free(arena.blocks)
        free(arena)


cdef inline void link(Arena **head, Arena *arena) noexcept:
    arena.listed = 1
    arena.prev = NULL
    arena.next = head[0]
    if head[0] != NULL:
        head[0].prev = arena
    head[0] = arena


cdef inline void unlink(Arena **head, Arena *arena) noexcept:
    arena.listed = 0
    if arena.prev != NULL:
        arena.prev.next = arena.next
    else:
        head[0] = arena.next
    if arena.next != NULL:
        arena.next.prev = arena.prev
    arena.next = arena.prev = NULL
