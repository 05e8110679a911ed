"""The Buffer of the ``python`` backend: a numpy array of read-only bytes.

Before Python 3.12 a pure-Python class cannot export the buffer protocol, so this Buffer is a subclass of the numpy
array. Its interface is that of the native one (`__init__.pyi`). Other methods of an array are not supported.

The chain of references, each object holding the next::

    memoryview(buffer) -> Buffer -> anchor -> memoryview of the block -> block (numpy's memory)
    np.frombuffer(buffer), np.asarray(buffer), its slices ... -> anchor

The base of the anchor is not an array, so numpy's collapsing of bases ends at the anchor. Its reference count shows
whether arrays over this Buffer exist, and it is freed with the Buffer and its last view.
"""

import gc
import math
import operator
import pickle
import sys
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np

from _uring.pickling import restored_buffer
from _uring.poison import ALLOCATED, FREED, poisons

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Self

_Array = np.ndarray[Any, np.dtype[np.uint8]]

_PAGE = 4096
_POISON = poisons(default=False)
# References to an anchor without views: the Buffer's base, the Buffer's attribute, the argument of getrefcount.
_IDLE_REFERENCES = 3
_NO_TIME = np.datetime64("NaT", "s").tobytes()


class Memory:
    """Counts the Buffers of one reactor, and the bytes they keep allocated.

    numpy allocates the bytes. No memory is recycled, so an existing view always sees valid bytes.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, tuple[weakref.ref[_Array], int]] = {}
        self._blocks: dict[int, tuple[weakref.ref[_Array], int]] = {}

    @property
    def buffers_live(self) -> int:
        return len(self._buffers)

    @property
    def bytes_live(self) -> int:
        return sum(nbytes for _, nbytes in list(self._blocks.values()))

    def allocate(self, *shape: int) -> "Buffer":
        """A Buffer of that shape, in bytes, uninitialized. Its creator writes it through `memory_of`."""
        block = _new_block(math.prod(shape))
        _watch(block, self._blocks)
        return self.expose(block, 0, shape)

    def expose(self, block: _Array, start: int, shape: tuple[int, ...]) -> "Buffer":
        """A Buffer over the bytes of `block` from `start`."""
        nbytes = math.prod(shape)
        # Over a read-only view: numpy lets anyone turn an array over a writable view writable again. Each has a
        # view of its own, because views that were made of one view count each other, and without the GIL miscount.
        anchor = np.frombuffer(
            block.data.toreadonly() if nbytes else b"", np.uint8, nbytes, start if nbytes else 0
        )
        if anchor.nbytes:
            _watch(anchor, self._buffers)
        buffer = anchor.reshape(shape).view(Buffer)
        buffer._memory, buffer._block, buffer._start, buffer._anchor = self, block, start, anchor
        return buffer


class _Poisoned(bytearray):
    """Memory that is overwritten when it is freed, to make use after free visible. Freed with its last export."""

    def __del__(self, pattern: bytes = bytes([FREED])) -> None:
        self[:] = pattern * len(self)


def _new_block(nbytes: int) -> _Array:
    """Uninitialized memory; filled with a pattern if poisoning is on."""
    if _POISON and nbytes:
        return np.frombuffer(_Poisoned(bytes([ALLOCATED]) * nbytes), dtype=np.uint8)
    return np.empty(nbytes, dtype=np.uint8)


def _watch(array: _Array, table: "dict[int, tuple[weakref.ref[_Array], int]]") -> None:
    """Keep `array` in `table` until it is freed, keyed by id: arrays, and so weak references to them, have no hash."""

    def forget(_: object, key: int = id(array)) -> None:
        table.pop(key, None)

    table[id(array)] = weakref.ref(array, forget), array.nbytes


class Buffer(_Array):
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

    # `release` cannot free the memory while the object lives, because an undetected view, held by C code, would read
    # freed memory. It empties the Buffer; the memory is freed with the last reference. As an operand the Buffer acts as
    # bytes, not as an array: `data` determines what `data += buffer` does.

    __module__ = "rangeio"  # where users find it
    # Below that of a plain array, so that the results of numpy functions on Buffers are arrays, not Buffers.
    __array_priority__ = -1e6
    _memory: Memory
    _block: _Array
    _start: int
    _anchor: _Array
    _released = False
    _unfinished = False

    def __new__(cls, *_: object) -> "Self":
        raise TypeError("only a read creates a Buffer; rangeio.from_bytes() makes a Reader of existing bytes")

    @property
    def nbytes_pinned(self) -> int:
        """Bytes of pool memory that this Buffer keeps allocated: the whole block of its read."""
        return self._block.nbytes

    @property
    def released(self) -> bool:
        """Whether `release` has freed the memory."""
        return self._released

    @property
    def nbytes(self) -> int:
        """Total number of bytes, also of a table; 0 after `release`."""
        return 0 if self._released else self._anchor.nbytes

    @property  # type: ignore[misc]  # of an array it may be set
    def shape(self) -> tuple[int, ...]:
        """``(nbytes,)``, or ``(records, bytes per record)`` for a table; ``(0,)`` after `release`."""
        return (0,) if self._released else super().shape

    def __len__(self) -> int:
        """The number of bytes; for a table, of records."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """A byte as an int, a record as a Buffer, or a slice as a Buffer. See the class."""
        self._check_usable()
        width = self.shape[1] if self.ndim == 2 else 1
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            if step != 1:
                raise ValueError(f"a Buffer slice has step 1, not {step}; use numpy() for strides")
            shape = (max(start, stop) - start, *self.shape[1:])
            return self._memory.expose(self._block, self._start + start * width, shape)
        i = operator.index(index)
        if i < 0:
            i += self.shape[0]
        if not 0 <= i < self.shape[0]:
            raise IndexError(f"index {index} of a Buffer of length {self.shape[0]}")
        if self.ndim == 2:
            return self._memory.expose(self._block, self._start + i * width, (width,))
        return int(self._block[self._start + i])

    def __setitem__(self, index: object, value: object) -> None:
        raise TypeError("a Buffer is read-only; use numpy(writable=True) for a writable array")

    def __iter__(self) -> Iterator[Any]:
        self._check_usable()
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: object) -> bool:
        return any(value == item for item in self)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        """Equal to any bytes-like object with the same bytes. Shapes are not compared."""
        try:
            view = memoryview(cast(bytes, other))
        except (
            TypeError,
            BufferError,
            ValueError,
        ):  # `other` may be this Buffer, released: equal to itself
            return NotImplemented
        self._check_usable()
        if not view.c_contiguous:
            return NotImplemented
        if view.nbytes != self.nbytes:
            return False
        return view.nbytes == 0 or np.array_equal(np.frombuffer(view, np.uint8), self._anchor)

    def __ne__(self, other: object) -> bool:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __hash__(self) -> int:  # type: ignore[override]  # arrays have none
        """That of `bytes` with the same bytes, which are copied for it. ValueError after `release`."""
        return hash(self.tobytes())

    def __bytes__(self) -> bytes:
        """As `tobytes`."""
        return self.tobytes()

    def tobytes(self, order: Any = "C") -> bytes:
        """A copy of the bytes; of a table, row by row. ValueError after `release`."""
        self._check_usable()
        return self._anchor.tobytes()

    def __repr__(self) -> str:
        if self._released:
            return "<rangeio.Buffer released>"
        size = " x ".join(map(str, self.shape))
        return (
            f"<rangeio.Buffer of {size} bytes: {self._anchor[:16].tobytes()!r}{'...' * (self.nbytes > 16)}>"
        )

    __str__ = __repr__

    def numpy(
        self,
        dtype: "npt.DTypeLike" = "u1",
        shape: "int | tuple[int, ...] | None" = None,
        *,
        writable: bool = False,
    ) -> "npt.NDArray[Any]":
        """A read-only array over the same memory.

        dtype: type of its items, including the byte order. shape: in items. The default is one dimension; for a table
        it is (records, items per record) if a record is a whole number of items. ValueError if the bytes are not a
        whole number of items or do not fill the shape, if the items are Python objects, and after `release`.

        writable: lend the memory to a writable array if there are no other views or slices. Until that array is freed,
        other access to the Buffer is a BufferError. If there are views or slices, and always with the backend
        ``python``, the array is a copy.
        """
        self._check_usable()
        array: npt.NDArray[Any] = np.frombuffer(self._anchor, dtype=dtype)
        if writable:
            array = array.copy()
        if shape is None:
            whole = self.ndim == 2 and self.shape[1] and self.shape[1] % array.itemsize == 0
            shape = (self.shape[0], self.shape[1] // array.itemsize) if whole else (-1,)
        return array.reshape(shape)

    def compact(self) -> "Buffer":
        """This Buffer if it pins little more than its own bytes (`nbytes_pinned`), else a copy that does.

        For Buffers kept for long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
        """
        self._check_usable()
        return self if self.nbytes_pinned <= 2 * max(self.nbytes, _PAGE) else self.__copy__()

    def __copy__(self) -> "Buffer":
        self._check_usable()
        copy = self._memory.allocate(*self.shape)
        memory_of(copy)[:] = memory_of(self)
        return copy

    def __deepcopy__(self, memo: object) -> "Buffer":
        return self.__copy__()

    def release(self) -> None:
        """Free the memory now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews or arrays. Slices are separate Buffers. They stay
        valid, and the memory is freed only when they are freed, too.
        """
        if self._released:
            return
        if self._is_viewed():
            raise BufferError("views of this Buffer exist; delete them first (numpy arrays, memoryviews)")
        self._released = True
        # Requests for a buffer must fail now, and before Python 3.12 only the array itself can refuse them. So it
        # becomes an array of dates, for which numpy has no buffer format, in Fortran order, which also fails requests
        # for contiguous bytes. `np.asarray`, which cannot be refused, sees NaT values.
        emptied: Any = (1, (2, 2), np.dtype("M8[s]"), True, _NO_TIME * 4)
        np.ndarray.__setstate__(self, emptied)

    def _is_viewed(self) -> bool:
        # A memoryview holds the Buffer through a managed buffer, which only the garbage collector can find. The scan
        # takes milliseconds, which is acceptable: release() is for single large Buffers.
        return sys.getrefcount(self._anchor) > _IDLE_REFERENCES or any(
            type(holder).__name__ == "managedbuffer" for holder in gc.get_referrers(self)
        )

    def _check_usable(self) -> None:
        if self._released:
            raise ValueError("this Buffer was released")
        self._unfinished = False

    def __enter__(self) -> "Self":
        """Return this Buffer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `release`."""
        self.release()

    def __dlpack_device__(self) -> Any:
        """``(1, 0)``: CPU memory."""
        return super().__dlpack_device__()

    def __dlpack__(self, **kwargs: Any) -> Any:
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer does not support read-only memory."""
        return self.numpy().__dlpack__(**kwargs)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute as for plain arrays: comparisons and sums of Buffers are arrays and numbers."""
        return getattr(ufunc, method)(*_plain(inputs), **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """The same for functions that are not ufuncs, such as `np.concatenate`."""
        return super().__array_function__(function, types, _plain(args), _plain(kwargs))

    def __int__(self) -> int:
        return int(self.tobytes())  # as for bytes

    def __float__(self) -> float:
        return float(self.tobytes())

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle a copy of the bytes; from protocol 5 on, they may be passed out of band."""
        self._check_usable()
        if operator.index(protocol) < 5:
            return restored_buffer, (self.tobytes(), self.shape)
        return restored_buffer, (pickle.PickleBuffer(cast(bytes, self)), self.shape)


def _plain(value: Any) -> Any:
    """Replace Buffers by arrays in the arguments of a numpy function. ValueError if one was released."""
    if isinstance(value, Buffer):
        value._check_usable()
        return np.asarray(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


class _UntilReleased:
    """An attribute of the array, available until the Buffer is released."""

    def __init__(self, attribute: Any) -> None:
        self._attribute = attribute

    def __get__(self, buffer: "Buffer | None", owner: type) -> Any:
        if buffer is not None:
            buffer._check_usable()
        return self._attribute.__get__(buffer, owner)

    def __set__(self, buffer: Buffer, value: object) -> None:
        raise AttributeError("a Buffer is read-only; use numpy() for an array of another dtype or shape")


def memory_of(buffer: Buffer) -> memoryview:
    """The writable memory of a Buffer: for its creator, before it is returned to a caller."""
    return buffer._block[buffer._start : buffer._start + buffer.nbytes].data


def as_unfinished(buffer: Buffer) -> Buffer:
    """Mark the Buffer as unfinished: until its bytes are accessed, `unfinished_memory` lets its creator write it."""
    buffer._unfinished = True
    return buffer


def unfinished_memory(buffer: Buffer) -> memoryview:
    """As `memory_of`. BufferError if a method has accessed the bytes; views made by C code are not detected."""
    if not buffer._unfinished:
        raise BufferError("this Buffer is finished: only a newly allocated Buffer may be filled")
    return memory_of(buffer)


def _not_implemented(self: Buffer, *_: object) -> Any:
    """For operators that an array has and bytes do not: leave them to the other operand."""
    return NotImplemented


def _refused(self: Buffer) -> Any:
    raise TypeError("a Buffer holds bytes, not numbers; use numpy() for an array")


for _name in (
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "and",
    "xor",
    "or",
):
    for _kind in ("", "r", "i"):
        setattr(Buffer, f"__{_kind}{_name}__", _not_implemented)
for _name in ("lshift", "rshift", "rlshift", "rrshift", "ilshift", "irshift", "lt", "le", "gt", "ge"):
    setattr(Buffer, f"__{_name}__", _not_implemented)
for _name in ("neg", "pos", "abs", "invert", "complex", "index"):
    setattr(Buffer, f"__{_name}__", _refused)
for _name, _attribute in vars(np.ndarray).items():
    if _name not in vars(Buffer) and (
        _name[0] != "_" or _name in ("__array__", "__array_interface__", "__array_struct__")
    ):
        setattr(Buffer, _name, _UntilReleased(_attribute))
