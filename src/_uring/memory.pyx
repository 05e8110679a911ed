"""The Buffer that a read returns, in a block of the reactor's memory (arenas.pyx)."""

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
    /* A static type takes its __module__ from the first part of tp_name. */
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
        """A Buffer of `size` uninitialized bytes."""
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
    """The bytes that a read returns: one-dimensional, or a table of records. Read-only, and not copied.

    Only reads create Buffers. `Reader.read_batch` returns tables, the other methods one-dimensional Buffers.
    `rangeio.from_bytes` makes a Reader of existing bytes.

    Everything that accepts bytes-like objects accepts a Buffer, without a copy: ``memoryview(buffer)``,
    ``numpy.frombuffer(buffer, dtype)``, ``pyarrow.py_buffer``, ``torch.frombuffer``, ``zlib``, ``file.write``. Where
    `bytes` is required (``json.loads``, for example), copy with ``bytes(buffer)``. A request for writable memory is a
    BufferError; for a writable array, use ``numpy(writable=True)``.

    ``len(buffer)`` and ``buffer[i]`` count bytes. In a table they count records, and ``buffer[i]`` is one record, a
    Buffer. ``buffer[a:b]`` is a Buffer of the same memory; its step must be 1 (ValueError). ``==`` compares the bytes
    with those of any bytes-like object, and ignores shapes. `hash` is that of the same bytes.

    Slices, views and arrays share the memory of the read. It returns to the pool when the last of them is freed; the
    Reader may be closed before. A short slice keeps all of it: see `nbytes_pinned` and `compact`. `release`, or the
    end of a ``with buffer:``, frees it early. After that every access to the bytes is a ValueError.

    Threads: any number may use a Buffer at the same time, since it is read-only. `release` and
    ``numpy(writable=True)`` check for views that exist in any thread.

    Pickles as a copy of its bytes and its shape, also through a multiprocessing queue. Protocol 5 can pass the bytes
    out of band (``buffer_callback``). It is unpickled into memory of the receiving process. `copy.copy` copies the
    bytes.
    """

    def __init__(self):
        raise TypeError("only a read creates a Buffer; rangeio.from_bytes() makes a Reader of existing bytes")

    def __dealloc__(self):
        # Views hold a reference to the Buffer (Py_buffer.obj), so none exists here.
        if self.block != NULL:
            self.memory.give(self.block)

    cdef void resize(self, Py_ssize_t shift, Py_ssize_t size) noexcept:
        """Reduce the Buffer to `size` bytes from `shift` on, in one dimension. Only before it is returned to a caller."""
        self.data += shift
        self.bytes = size
        self.dimensions = 1
        self.extent[0], self.stride[0] = size, 1

    cdef void tabulate(self, Py_ssize_t count, Py_ssize_t length) noexcept:
        """Shape the bytes as `count` records of `length`."""
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
        """Call before every access to the bytes. From then on they are final."""
        if self.data == NULL:
            raise ValueError("this Buffer was released")
        if self.lending == LENT:
            raise BufferError("this Buffer's memory is lent to a writable array; it has no other access until that array is freed")
        self.unfinished = False
        return 0

    @property
    def nbytes(self):
        """Total number of bytes, also of a table; 0 after `release`."""
        return self.bytes

    @property
    def nbytes_pinned(self):
        """Bytes of pool memory that this Buffer keeps allocated: the whole block of its read."""
        return self.block.arena.block_size if self.block != NULL else 0

    @property
    def shape(self):
        """``(nbytes,)``, or ``(records, bytes per record)`` for a table; ``(0,)`` after `release`."""
        if self.dimensions == 2:
            return self.extent[0], self.extent[1]
        return (self.extent[0],)

    @property
    def released(self):
        """Whether `release` has freed the memory."""
        return self.data == NULL

    def __len__(self):
        """The number of bytes; for a table, of records."""
        return self.extent[0]

    def __getitem__(self, index):
        """A byte as an int, a record as a Buffer, or a slice as a Buffer. See the class."""
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
        # A writable view of a table is one-dimensional: memoryview cannot assign to slices in two dimensions.
        cdef bint flat = self.dimensions == 1 or self.lending == OFFERED
        self.check_usable()
        if flags & PyBUF_WRITABLE and self.lending != OFFERED:
            raise BufferError("a Buffer is read-only; use numpy(writable=True) for a writable array")
        if (flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS and not flat and self.extent[0] > 1 and self.extent[1] > 1:
            raise BufferError("a table of records is C-contiguous, not Fortran-contiguous")
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
        """Equal to any bytes-like object with the same bytes. Shapes are not compared."""
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

    def __hash__(self):
        """That of `bytes` with the same bytes, which are copied for it. ValueError after `release`."""
        return hash(self.tobytes())

    def tobytes(self):
        """A copy of the bytes; of a table, row by row. ValueError after `release`."""
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
        """A read-only array over the same memory.

        dtype: type of its items, including the byte order. shape: in items. The default is one dimension; for a table
        it is (records, items per record) if a record is a whole number of items. ValueError if the bytes are not a
        whole number of items or do not fill the shape, if the items are Python objects, and after `release`.

        writable: lend the memory to a writable array if there are no other views or slices. Until that array is freed,
        other access to the Buffer is a BufferError. If there are views or slices, and always with the backend
        ``python``, the array is a copy.
        """
        import numpy
        dtype = numpy.dtype(dtype)  # may run Python code, so before the memory is OFFERED
        self.check_usable()
        if writable and not (self.exports == 0 and self.block != NULL and self.block.views == 1):
            array = numpy.frombuffer(self.tobytes(), dtype=dtype).copy()
        elif writable:
            array = self.hand_over(numpy, dtype)
        else:
            array = numpy.frombuffer(self, dtype=dtype)
        return array.reshape(self.default_shape(array.itemsize) if shape is None else shape)

    cdef hand_over(self, numpy, dtype):
        """A writable array. This is safe because no other view exists, and none can be made while the array lives."""
        self.lending = OFFERED
        try:
            return numpy.frombuffer(self, dtype=dtype)
        finally:
            self.lending = LENT if self.exports else KEPT

    cdef offer(self):
        """A writable view, for the creator of this Buffer to fill it (Reactor.writable)."""
        if self.exports or not self.unfinished:
            raise BufferError("this Buffer is finished: only a newly allocated Buffer may be filled")
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

        For Buffers kept for long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
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
        """Free the memory now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews or arrays. Slices are separate Buffers. They stay
        valid, and the memory is freed only when they are freed, too.
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
        """Return this Buffer."""
        return self

    def __exit__(self, *_):
        """As `release`."""
        self.release()

    def __dlpack__(self, **kwargs):
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer does not support read-only memory."""
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self):
        """``(1, 0)``: CPU memory."""
        return (1, 0)  # kDLCPU

    def __reduce__(self):
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol):
        """Pickle a copy of the bytes; from protocol 5 on, they may be passed out of band."""
        self.check_usable()
        return restored_buffer, (PickleBuffer(self) if protocol >= 5 else self.tobytes(), self.shape)


rangeio_name_buffer(Buffer)  # where users find it
