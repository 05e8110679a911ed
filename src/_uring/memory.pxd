"""Pool memory and the Buffer that hands it out."""

from libc.stdint cimport int64_t, uint32_t, uint8_t


cdef enum:
    CLASSES = 16
    PAGE = 4096
    HUGE = 2097152


cdef enum:
    # Who may look at a Buffer's memory: anybody to read; the one view being made, to write; only that view.
    KEPT = 0
    OFFERED = 1
    LENT = 2


cdef struct Arena:
    # One mapping, cut into blocks of one size; a block above the largest class has an arena of its own.
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


cdef class Memory:
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
    cdef int mark_taken(self, Block *block, size_t size) except -1
    cdef void unmap(self, Arena *arena) noexcept
    cdef Buffer allocate(self, size_t size)


cdef class Buffer:
    cdef Memory memory
    cdef Block *block
    cdef char *data
    cdef Py_ssize_t bytes
    cdef Py_ssize_t extent[2]
    cdef Py_ssize_t stride[2]
    cdef int dimensions
    cdef int exports
    cdef int lending

    cdef void resize(self, Py_ssize_t shift, Py_ssize_t size) noexcept
    cdef void tabulate(self, Py_ssize_t count, Py_ssize_t length) noexcept
    cdef Buffer view(self, Py_ssize_t start, Py_ssize_t size)
    cdef int check_usable(self) except -1
    cdef hand_over(self, numpy, dtype)
    cdef default_shape(self, Py_ssize_t itemsize)
