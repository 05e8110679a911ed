"""The Buffer of the ``python`` backend: an array that is read-only bytes.

Before Python 3.12 a pure class cannot export the buffer protocol, so this Buffer is a numpy array by birth. Its
surface is that of the native one (`__init__.pyi`); what an array can do beyond it is an accident, not an offer.

How it hangs together, each holding the next::

    memoryview(buffer) -> Buffer -> anchor -> memoryview of the block -> block (numpy's memory)
    np.frombuffer(buffer), np.asarray(buffer), its slices ... -> anchor

The anchor is a plain array without an array below it, so numpy's collapsing of bases ends there: its reference count
says whether arrays over this one Buffer exist, and its death is the death of the Buffer and of every view.
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
from _uring.poison import GIVEN_BACK, HANDED_OUT, poisons

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Self

_Array = np.ndarray[Any, np.dtype[np.uint8]]

_PAGE = 4096
_POISON = poisons(default=False)
# Of an anchor nobody looks at: by the Buffer as its base, by the Buffer's attribute, by the question itself.
_IDLE_REFERENCES = 3
_NO_TIME = np.datetime64("NaT", "s").tobytes()


class Memory:
    """Counts the Buffers of one reactor, and the bytes that they keep.

    The bytes are numpy's own: nothing is recycled, so whatever still looks at them keeps them right.
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
        """A Buffer of that shape, in bytes, holding whatever was there; `memory_of` lets its maker write it."""
        block = _new_block(math.prod(shape))
        _watch(block, self._blocks)
        return self.expose(block.data, 0, shape)

    def expose(self, block: memoryview, start: int, shape: tuple[int, ...]) -> "Buffer":
        """A Buffer over the bytes of `block` from `start`."""
        nbytes = math.prod(shape)
        # Over a view that is read-only itself: numpy would let anybody make an array of a writable one writable again.
        anchor = np.frombuffer(
            block.toreadonly() if nbytes else b"", np.uint8, nbytes, start if nbytes else 0
        )
        if anchor.nbytes:
            _watch(anchor, self._buffers)
        buffer = anchor.reshape(shape).view(Buffer)
        buffer._memory, buffer._block, buffer._start, buffer._anchor = self, block, start, anchor
        return buffer


class _Poisoned(bytearray):
    """Memory that shows who looks at it when it was given back. It dies when nothing is exported of it any more."""

    def __del__(self) -> None:
        self[:] = bytes([GIVEN_BACK]) * len(self)


def _new_block(nbytes: int) -> _Array:
    """Memory with whatever was there; with a pattern where it is to be seen that nobody has written it."""
    if _POISON and nbytes:
        return np.frombuffer(_Poisoned(bytes([HANDED_OUT]) * nbytes), dtype=np.uint8)
    return np.empty(nbytes, dtype=np.uint8)


def _watch(array: _Array, table: "dict[int, tuple[weakref.ref[_Array], int]]") -> None:
    """Keep `array` in `table` until it dies, by its id: arrays, and so weak references to them, have no hash."""

    def forget(_: object, key: int = id(array)) -> None:
        table.pop(key, None)

    table[id(array)] = weakref.ref(array, forget), array.nbytes


class Buffer(_Array):
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

    # `release` cannot free the memory while the object lives (an unseen view, held by C code, would read freed memory):
    # it empties the Buffer, and the memory goes when the last reference to it does. As an operand it is no array:
    # `data += buffer` is what `data` makes of bytes.

    __module__ = "rangeio"  # where users find it
    # Below that of a plain array: what numpy computes from Buffers is an array, not a Buffer.
    __array_priority__ = -1e6
    __hash__ = None

    _memory: Memory
    _block: memoryview
    _start: int
    _anchor: _Array
    _released = False
    _unfinished = False

    def __new__(cls, *_: object) -> "Self":
        raise TypeError("a Buffer is made by a read; rangeio.from_bytes() makes a Reader of bytes you have")

    @property
    def nbytes_pinned(self) -> int:
        """Bytes of pool memory that this Buffer keeps from being reused: all that its read has taken."""
        return self._block.nbytes

    @property
    def released(self) -> bool:
        """Whether the memory was given back by `release`."""
        return self._released

    @property
    def nbytes(self) -> int:
        """Bytes in all, also of a table; 0 after `release`."""
        return 0 if self._released else self._anchor.nbytes

    @property  # type: ignore[misc]  # of an array it may be set
    def shape(self) -> tuple[int, ...]:
        """``(nbytes,)``; of a table ``(records, bytes of each)``; ``(0,)`` after `release`."""
        return (0,) if self._released else super().shape

    def __len__(self) -> int:
        """Bytes; of a table, its records."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """A byte as an int, a record as a Buffer, or a slice as a Buffer; see the class."""
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
        return self._block[self._start + i]

    def __setitem__(self, index: object, value: object) -> None:
        raise TypeError("a Buffer is read-only; numpy(writable=True) gives an array to write")

    def __iter__(self) -> Iterator[Any]:
        self._check_usable()
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: object) -> bool:
        return any(value == item for item in self)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        """Equal to any bytes-like object with the same bytes (shape is not compared)."""
        try:
            view = memoryview(cast(bytes, other))
        except (
            TypeError,
            BufferError,
            ValueError,
        ):  # this one too, if it was released: it is equal to itself
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

    def __bytes__(self) -> bytes:
        """As `tobytes`."""
        return self.tobytes()

    def tobytes(self, order: Any = "C") -> bytes:
        """A copy of the bytes, those of a table row by row. ValueError after `release`."""
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
        """An array over the same memory, read-only.

        dtype: of its items, in the byte order that it says. shape: in items; by default one row, and of a table
        (records, items of each) where a record is a whole number of items. ValueError if the bytes are not a whole
        number of items, or do not fill the shape, if the items are Python objects, and after `release`.

        With `writable` the memory is handed over if nothing else looks at it (no view, no slice): the array may be
        written, and until it dies the Buffer gives out no other view (BufferError). Else, and always with the backend
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

        For what is kept long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
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
        """Give the memory back now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews, arrays. Slices are Buffers of their own: they stay
        valid, and the memory goes when they are gone, too.
        """
        if self._released:
            return
        if self._is_viewed():
            raise BufferError("views of this Buffer exist; delete them first (numpy arrays, memoryviews)")
        self._released = True
        # Nothing that asks for a buffer may get one, and before Python 3.12 only the array itself can refuse: numpy has
        # no format for dates, and what is in Fortran's order is not the row of bytes that the others ask for.
        # What numpy shows without a question (`np.asarray`) is no time at all.
        emptied: Any = (1, (2, 2), np.dtype("M8[s]"), True, _NO_TIME * 4)
        np.ndarray.__setstate__(self, emptied)

    def _is_viewed(self) -> bool:
        # A memoryview holds the Buffer by a managed buffer, which only the collector can see. A scan takes
        # milliseconds; release() is for the one large Buffer, not for every small one.
        return sys.getrefcount(self._anchor) > _IDLE_REFERENCES or any(
            type(holder).__name__ == "managedbuffer" for holder in gc.get_referrers(self)
        )

    def _check_usable(self) -> None:
        if self._released:
            raise ValueError("this Buffer was released")
        self._unfinished = False

    def __enter__(self) -> "Self":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `release`."""
        self.release()

    def __dlpack_device__(self) -> Any:
        """``(1, 0)``: memory of the CPU."""
        return super().__dlpack_device__()

    def __dlpack__(self, **kwargs: Any) -> Any:
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer knows no read-only memory."""
        return self.numpy().__dlpack__(**kwargs)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute as a plain array would: comparisons and sums of Buffers are arrays and numbers."""
        return getattr(ufunc, method)(*_plain(inputs), **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """The same for what is no ufunc, `np.concatenate` for one."""
        return super().__array_function__(function, types, _plain(args), _plain(kwargs))

    def __int__(self) -> int:
        return int(self.tobytes())  # as of any bytes

    def __float__(self) -> float:
        return float(self.tobytes())

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """A copy of the bytes; from protocol 5 on they may travel beside the pickle."""
        self._check_usable()
        if operator.index(protocol) < 5:
            return restored_buffer, (self.tobytes(), self.shape)
        return restored_buffer, (pickle.PickleBuffer(cast(bytes, self)), self.shape)


def _plain(value: Any) -> Any:
    """What a function of numpy's is given, with arrays in place of Buffers. ValueError for one that was released."""
    if isinstance(value, Buffer):
        value._check_usable()
        return np.asarray(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


class _OfTheLiving:
    """What a Buffer has as an array, until it is released."""

    def __init__(self, attribute: Any) -> None:
        self._attribute = attribute

    def __get__(self, buffer: "Buffer | None", owner: type) -> Any:
        if buffer is not None:
            buffer._check_usable()
        return self._attribute.__get__(buffer, owner)

    def __set__(self, buffer: Buffer, value: object) -> None:
        raise AttributeError("a Buffer is read-only; numpy() gives an array of another kind")


def memory_of(buffer: Buffer) -> memoryview:
    """The memory of a Buffer, writable: for whoever makes it, before anybody else has seen it."""
    return buffer._block[buffer._start : buffer._start + buffer.nbytes]


def as_unfinished(buffer: Buffer) -> Buffer:
    """The Buffer, which `unfinished_memory` lets its maker write, until somebody looks at it."""
    buffer._unfinished = True
    return buffer


def unfinished_memory(buffer: Buffer) -> memoryview:
    """As `memory_of`. BufferError if its methods have shown the bytes; views made by C code go unnoticed."""
    if not buffer._unfinished:
        raise BufferError("this Buffer is finished: only what was just allocated may be filled")
    return memory_of(buffer)


def _not_for_bytes(self: Buffer, *_: object) -> Any:
    """What an array would do with its numbers; bytes refuse it, or leave it to the other operand."""
    return NotImplemented


def _refused(self: Buffer) -> Any:
    raise TypeError("a Buffer is bytes, not numbers; numpy() makes an array of it")


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
        setattr(Buffer, f"__{_kind}{_name}__", _not_for_bytes)
for _name in ("lshift", "rshift", "rlshift", "rrshift", "ilshift", "irshift", "lt", "le", "gt", "ge"):
    setattr(Buffer, f"__{_name}__", _not_for_bytes)
for _name in ("neg", "pos", "abs", "invert", "complex", "index"):
    setattr(Buffer, f"__{_name}__", _refused)
for _name, _attribute in vars(np.ndarray).items():
    if _name not in vars(Buffer) and (
        _name[0] != "_" or _name in ("__array__", "__array_interface__", "__array_struct__")
    ):
        setattr(Buffer, _name, _OfTheLiving(_attribute))
