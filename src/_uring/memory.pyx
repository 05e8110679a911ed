"""The Buffer that a read hands out, in a block of the reactor's memory (arenas.pyx)."""

import operator

cimport cython
from cpython.buffer cimport (
    PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE,
    PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy

from pickle import PickleBuffer

from _uring.surface import restored_buffer

cdef char empty[1]
cdef Py_ssize_t one = 1
cdef char *byte_format = "B"


@cython.no_gc
cdef class Memory(Arenas):
    """The arenas of one reactor, and the Buffers in them."""

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
