"""Blocks of memory, allocated from huge pages."""

from libc.stdint cimport uint8_t, uint32_t


cdef enum:
    CLASSES = 16
    PAGE = 4096
    HUGE = 2097152


cdef struct Arena:
    # One mapping, divided into blocks of one size. A block above the largest size class has its own arena.
    char *base
    size_t size
    size_t block_size
    uint32_t count
    uint32_t live
    int size_class
    Block *free
    Block *blocks
    Arena *next
    Arena *prev
    int listed


cdef struct Block:
    char *base
    Arena *arena
    Block *next
    uint32_t views


cdef class Arenas:
    cdef Arena *partial[CLASSES]
    cdef Arena *retained
    cdef readonly size_t pool_bytes
    cdef readonly size_t bytes_mapped
    cdef readonly size_t bytes_live
    cdef readonly Py_ssize_t buffers_live

    cdef Block *take(self, size_t size) except NULL
    cdef void give(self, Block *block) noexcept
    cdef Arena *map_arena(self, size_t size, size_t block_size, int size_class) except NULL
    cdef Block *take_large(self, size_t size) except NULL
    cdef void give_large(self, Arena *arena) noexcept
    cdef int mark_allocated(self, Block *block, size_t size) except -1
    cdef void unmap(self, Arena *arena) noexcept
