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

from _uring.pickling import restored_buffer

cdef extern from *:
    """
    /* What a static type says of its module is the front of this name. */
    #define rangeio_name_buffer(type) (((PyTypeObject *)(type))->tp_name = "rangeio.Buffer")
    """
    void rangeio_name_buffer(object type)

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
    """Bytes that a read has returned: a row of bytes, or a table of records. Read-only, and not copied.

    Made by reads only: `Reader.read_batch` makes tables, the other methods rows, and `rangeio.from_bytes` makes a
    Reader of bytes that you have.

    What takes bytes-like objects takes a Buffer, without a copy: ``memoryview(buffer)``, ``numpy.frombuffer(buffer,
    dtype)``, ``pyarrow.py_buffer``, ``torch.frombuffer``, ``zlib``, ``file.write``. What insists on `bytes`
    (``json.loads``, say) is given a copy: ``bytes(buffer)``. Nothing that wants to write gets the memory (BufferError),
    but for ``numpy(writable=True)``.

    ``len(buffer)`` and ``buffer[i]`` count bytes; of a table they count records, and ``buffer[i]`` is one record, a
    Buffer. ``buffer[a:b]`` is a Buffer, too, of the same memory; its step is 1 (ValueError). ``==`` compares the bytes
    with those of any bytes-like object; shapes are not compared. A Buffer has no hash.

    Slices, views and arrays share the memory of the read. It goes back to the pool when the last of them is gone; the
    Reader may be closed before. A short slice keeps all of it: see `nbytes_pinned` and `compact`. `release` gives it
    back early, and so does the end of a ``with buffer:``. After that every use of the bytes is a ValueError.

    Threads: any number may use a Buffer at once, since nobody writes to it. `release` and ``numpy(writable=True)``
    notice whoever still looks at the memory, in whatever thread.

    Pickles as a copy of its bytes and its shape, also through a multiprocessing queue, or by protocol 5 beside the
    pickle (``buffer_callback``); it is unpickled into memory of the receiving process. `copy.copy` copies the bytes.
    """

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
        """To be called before anybody is shown the bytes. They are final from then on."""
        if self.data == NULL:
            raise ValueError("this Buffer was released")
        if self.lending == LENT:
            raise BufferError("this Buffer's memory was handed out writable; it shows nothing else until that array is gone")
        self.unfinished = False
        return 0

    @property
    def nbytes(self):
        """Bytes in all, also of a table; 0 after `release`."""
        return self.bytes

    @property
    def nbytes_pinned(self):
        """Bytes of pool memory that this Buffer keeps from being reused: all that its read has taken."""
        return self.block.arena.block_size if self.block != NULL else 0

    @property
    def shape(self):
        """``(nbytes,)``; of a table ``(records, bytes of each)``; ``(0,)`` after `release`."""
        if self.dimensions == 2:
            return self.extent[0], self.extent[1]
        return (self.extent[0],)

    @property
    def released(self):
        """Whether the memory was given back by `release`."""
        return self.data == NULL

    def __len__(self):
        """Bytes; of a table, its records."""
        return self.extent[0]

    def __getitem__(self, index):
        """A byte as an int, a record as a Buffer, or a slice as a Buffer; see the class."""
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
        """Equal to any bytes-like object with the same bytes (shape is not compared)."""
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
        """A copy of the bytes, those of a table row by row. ValueError after `release`."""
        self.check_usable()
        return PyBytes_FromStringAndSize(self.data, self.bytes)

    def __bytes__(self):
        """As `tobytes`."""
        return self.tobytes()

    def __repr__(self):
        if self.data == NULL:
            return "<rangeio.Buffer released>"
        shape = f"{self.extent[0]} x {self.extent[1]}" if self.dimensions == 2 else f"{self.bytes}"
        head = self.data[:min(self.bytes, 16)] if self.lending == KEPT else b""
        return f"<rangeio.Buffer of {shape} bytes: {head!r}{'...' if self.bytes > 16 else ''}>"

    def numpy(self, dtype="u1", shape=None, *, writable=False):
        """An array over the same memory, read-only.

        dtype: of its items, in the byte order that it says. shape: in items; by default one row, and of a table
        (records, items of each) where a record is a whole number of items. ValueError if the bytes are not a whole
        number of items, or do not fill the shape, if the items are Python objects, and after `release`.

        With `writable` the memory is handed over if nothing else looks at it (no view, no slice): the array may be
        written, and until it dies the Buffer gives out no other view (BufferError). Else, and always with the backend
        ``python``, the array is a copy.
        """
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

    cdef offer(self):
        """A writable view, for whoever made this Buffer and fills it (Reactor.writable)."""
        if self.exports or not self.unfinished:
            raise BufferError("this Buffer is finished: only what was just allocated may be filled")
        self.lending = OFFERED
        try:
            return memoryview(self)
        finally:
            self.lending = KEPT
            self.unfinished = True

    cdef default_shape(self, Py_ssize_t itemsize):
        if self.dimensions == 2 and self.extent[1] and self.extent[1] % itemsize == 0:
            return (self.extent[0], self.extent[1] // itemsize)
        return -1

    def compact(self):
        """This Buffer if it pins little more than its own bytes (`nbytes_pinned`), else a copy that does.

        For what is kept long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
        """
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
        """Give the memory back now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews, arrays. Slices are Buffers of their own: they stay
        valid, and the memory goes when they are gone, too.
        """
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
        """Itself."""
        return self

    def __exit__(self, *_):
        """As `release`."""
        self.release()

    def __dlpack__(self, **kwargs):
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer knows no read-only memory."""
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self):
        """``(1, 0)``: memory of the CPU."""
        return (1, 0)  # kDLCPU

    def __reduce__(self):
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol):
        """A copy of the bytes; from protocol 5 on they may travel beside the pickle."""
        self.check_usable()
        return restored_buffer, (PickleBuffer(self) if protocol >= 5 else self.tobytes(), self.shape)


rangeio_name_buffer(Buffer)  # where users find it
