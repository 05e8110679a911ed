"""Memory that reads land in: arenas of huge pages, size classes, and the Buffer that owns a block of them.

Fresh memory costs more than reading a cached file: the kernel hands out new pages at 0.5-2 GB/s and copies into touched
ones at 10-15 GB/s. So blocks are recycled, last used first, and arenas are 2 MiB pages (`madvise(MADV_HUGEPAGE)` before
the first touch: MAP_POPULATE first would give 4 KiB pages), which also cuts the CPU of O_DIRECT by five.

Every structure here is changed with the GIL held and never while a read is under way on the block concerned, so there is
no lock. The kernel writes to a block only while a Batch holds its Buffer (request.pyx); `Buffer.__dealloc__` is the only
place where a block goes back.

In debug builds, and with RANGEIO_POISON=1, memory that is handed out is filled with one pattern and memory given back with
another (poison.h). Under AddressSanitizer nobody may touch what was given back, nor what lies behind what was asked for.
"""

import operator
import os

cimport cython
from cpython.buffer cimport (
    PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE,
    PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap

from pickle import PickleBuffer

from _uring.surface import GIVEN_BACK, HANDED_OUT, poisons, restored_buffer

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
    uint8_t rangeio_handed_out, rangeio_given_back
    void rangeio_allow(char *place, size_t size)
    void rangeio_mark_given(char *place, size_t size)
    int rangeio_mark_taken(char *place, size_t size, size_t whole)

rangeio_poison = poisons(RANGEIO_IS_DEBUG)
rangeio_handed_out, rangeio_given_back = HANDED_OUT, GIVEN_BACK

# Steps of at most 1.5x waste a third at worst; all are whole pages, which is what O_DIRECT wants.
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

# Blocks up to this size serve small reads, whose latency the first touch would dominate.
cdef size_t PREFAULT_BELOW = 64 << 10
cdef char empty[1]
cdef Py_ssize_t one = 1
cdef char *byte_format = "B"


def default_pool_bytes():
    """An eighth of the machine's memory, at most 2 GiB."""
    return min(2 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


cdef char *map_pages(size_t size, bint prefault) noexcept nogil:
    """Map `size` bytes (a multiple of 2 MiB) on a 2 MiB border, backed by huge pages where the kernel has some."""
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
cdef class Memory:
    """The arenas of one reactor. `pool_bytes` bounds what is kept free for reuse, never what is handed out."""

    def __cinit__(self, size_t pool_bytes):
        self.pool_bytes = pool_bytes

    def __dealloc__(self):
        # Every Buffer holds its Memory, so no block is out: all arenas are free.
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
        """A block of at least `size` bytes, on a page border."""
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
        self.mark_taken(block, size)
        arena.free = block.next
        arena.live += 1
        if arena.free == NULL:
            unlink(&self.partial[size_class], arena)
        block.views = 1
        self.bytes_live += arena.block_size
        self.buffers_live += 1
        return block

    cdef Block *take_large(self, size_t size) except NULL:
        """The smallest retained arena that fits without wasting a quarter, else a new one."""
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
        self.mark_taken(&best.blocks[0], size)
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
        rangeio_mark_given(block.base, arena.block_size)
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
            with nogil:  # mapping and first touch may take milliseconds; nothing of this object changes meanwhile
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
        rangeio_mark_given(base, size)
        return arena

    cdef int mark_taken(self, Block *block, size_t size) except -1:
        """Let the first `size` bytes of a block be used."""
        if rangeio_mark_taken(block.base, size, block.arena.block_size) != 0:
            raise SystemError(f"a block of {block.arena.block_size} bytes was written to after it had been given back")
        return 0

    cdef void unmap(self, Arena *arena) noexcept:
        rangeio_allow(arena.base, arena.size)  # the addresses may be another's next
        munmap(arena.base, arena.size)
        self.bytes_mapped -= arena.size
        free(arena.blocks)
        free(arena)

    cdef Buffer allocate(self, size_t size):
        """A Buffer of `size` bytes whose content is whatever the memory held before."""
        cdef Buffer buffer = Buffer.__new__(Buffer)
        buffer.memory = self
        buffer.data = empty
        if size:
            buffer.block = self.take(size)
            buffer.data = buffer.block.base
        buffer.resize(0, size)
        return buffer


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


@cython.no_gc
@cython.freelist(512)
@cython.final
cdef class Buffer:
    """Read-only bytes in memory of the reactor. See the stub for the surface."""

    def __init__(self):
        raise TypeError("a Buffer is made by a read; rangeio.from_bytes() makes a Reader of bytes you have")

    def __dealloc__(self):
        # Views hold the Buffer (Py_buffer.obj), so none is left here.
        if self.block != NULL:
            self.memory.give(self.block)

    cdef void resize(self, Py_ssize_t shift, Py_ssize_t size) noexcept:
        """Show `size` bytes from `shift` on, as one row. Only before anybody else has seen the Buffer."""
        self.data += shift
        self.bytes = size
        self.dimensions = 1
        self.extent[0], self.stride[0] = size, 1

    cdef void tabulate(self, Py_ssize_t count, Py_ssize_t length) noexcept:
        """Show the bytes as `count` records of `length`."""
        self.dimensions = 2
        self.extent[0], self.stride[0] = count, length
        self.extent[1], self.stride[1] = length, 1

    cdef Buffer view(self, Py_ssize_t start, Py_ssize_t size):
        cdef Buffer part = Buffer.__new__(Buffer)
        self.check_usable()
        part.memory = self.memory
        if self.block != NULL:
            part.block = self.block
            self.block.views += 1
            self.memory.buffers_live += 1
        part.data = self.data
        part.resize(start, size)
        return part

    cdef int check_usable(self) except -1:
        if self.data == NULL:
            raise ValueError("this Buffer was released")
        if self.lending == LENT:
            raise BufferError("this Buffer's memory was handed out writable; it shows nothing else until that array is gone")
        return 0

    @property
    def nbytes(self):
        return self.bytes

    @property
    def nbytes_pinned(self):
        return self.block.arena.block_size if self.block != NULL else 0

    @property
    def shape(self):
        if self.dimensions == 2:
            return self.extent[0], self.extent[1]
        return (self.extent[0],)

    @property
    def released(self):
        return self.data == NULL

    def __len__(self):
        return self.extent[0]

    def __getitem__(self, index):
        cdef Py_ssize_t start, stop, step, i
        cdef Py_ssize_t width = self.extent[1] if self.dimensions == 2 else 1
        cdef Buffer part
        self.check_usable()
        if isinstance(index, slice):
            start, stop, step = index.indices(self.extent[0])
            if step != 1:
                raise ValueError(f"a Buffer slice has step 1, not {step}; use numpy() for strides")
            stop = max(start, stop)
            part = self.view(start * width, (stop - start) * width)
            if self.dimensions == 2:
                part.tabulate(stop - start, width)
            return part
        i = operator.index(index)
        if i < 0:
            i += self.extent[0]
        if not 0 <= i < self.extent[0]:
            raise IndexError(f"index {index} of a Buffer of length {self.extent[0]}")
        if self.dimensions == 2:
            return self.view(i * width, width)
        return <unsigned char>self.data[i]

    def __getbuffer__(self, Py_buffer *view, int flags):
        # Who fills a table sees it as one row: memoryview cannot assign slices of two dimensions.
        cdef bint flat = self.dimensions == 1 or self.lending == OFFERED
        self.check_usable()
        if flags & PyBUF_WRITABLE and self.lending != OFFERED:
            raise BufferError("a Buffer is read-only; numpy(writable=True) hands its memory over")
        if (flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS and not flat and self.extent[0] > 1 and self.extent[1] > 1:
            raise BufferError("a table of records lies row by row, not in Fortran's order")
        view.buf = self.data
        view.obj = self
        view.len = self.bytes
        view.itemsize = 1
        view.readonly = self.lending != OFFERED
        view.format = byte_format if flags & PyBUF_FORMAT else NULL
        view.ndim = 1 if flat or not flags & PyBUF_ND else 2
        view.shape = NULL if not flags & PyBUF_ND else &self.bytes if flat else self.extent
        view.strides = NULL if (flags & PyBUF_STRIDES) != PyBUF_STRIDES else &one if flat else self.stride
        view.suboffsets = NULL
        view.internal = NULL
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1
        if self.exports == 0 and self.lending == LENT:
            self.lending = KEPT

    def __eq__(self, other):
        cdef Py_buffer view
        cdef bint same
        try:
            PyObject_GetBuffer(other, &view, PyBUF_SIMPLE)
        except (TypeError, BufferError, ValueError):
            return NotImplemented
        try:
            self.check_usable()
            same = view.len == self.bytes and memcmp(view.buf, self.data, self.bytes) == 0
        finally:
            PyBuffer_Release(&view)
        return same

    __hash__ = None

    def tobytes(self):
        self.check_usable()
        return PyBytes_FromStringAndSize(self.data, self.bytes)

    def __bytes__(self):
        return self.tobytes()

    def __repr__(self):
        if self.data == NULL:
            return "<rangeio.Buffer released>"
        shape = f"{self.extent[0]} x {self.extent[1]}" if self.dimensions == 2 else f"{self.bytes}"
        head = self.data[:min(self.bytes, 16)] if self.lending == KEPT else b""
        return f"<rangeio.Buffer of {shape} bytes: {head!r}{'...' if self.bytes > 16 else ''}>"

    def numpy(self, dtype="u1", shape=None, *, writable=False):
        import numpy
        dtype = numpy.dtype(dtype)  # may run Python code, which must not find the memory on offer
        self.check_usable()
        if writable and not (self.exports == 0 and self.block != NULL and self.block.views == 1):
            array = numpy.frombuffer(self.tobytes(), dtype=dtype).copy()
        elif writable:
            array = self.hand_over(numpy, dtype)
        else:
            array = numpy.frombuffer(self, dtype=dtype)
        return array.reshape(self.default_shape(array.itemsize) if shape is None else shape)

    cdef hand_over(self, numpy, dtype):
        """An array that may write: sound only because no other view exists now, and none is given out while it lives."""
        self.lending = OFFERED
        try:
            return numpy.frombuffer(self, dtype=dtype)
        finally:
            self.lending = LENT if self.exports else KEPT

    def filling(self):
        """A writable view, for the one who fills a Buffer that nobody else has seen (Reactor.writable)."""
        self.check_usable()
        if self.exports:
            raise BufferError("this Buffer has been shown already")
        self.lending = OFFERED
        try:
            return memoryview(self)
        finally:
            self.lending = KEPT

    cdef default_shape(self, Py_ssize_t itemsize):
        if self.dimensions == 2 and self.extent[1] and self.extent[1] % itemsize == 0:
            return (self.extent[0], self.extent[1] // itemsize)
        return -1

    def compact(self):
        cdef Buffer copy
        self.check_usable()
        if self.nbytes_pinned <= 2 * max(self.bytes, PAGE):
            return self
        copy = self.memory.allocate(self.bytes)
        memcpy(copy.data, self.data, self.bytes)
        if self.dimensions == 2:
            copy.tabulate(self.extent[0], self.extent[1])
        return copy

    def release(self):
        if self.exports:
            raise BufferError(f"{self.exports} view(s) of this Buffer exist; delete them first (numpy arrays, memoryviews)")
        if self.block != NULL:
            self.memory.give(self.block)
            self.block = NULL
        self.data = NULL
        self.bytes = 0
        self.dimensions = 1
        self.extent[0] = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def __dlpack__(self, **kwargs):
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return (1, 0)  # kDLCPU

    def __reduce__(self):
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol):
        """A copy of the bytes; from protocol 5 on they may travel beside the pickle."""
        self.check_usable()
        return restored_buffer, (PickleBuffer(self) if protocol >= 5 else self.tobytes(), self.shape)
