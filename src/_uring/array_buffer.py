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

from _uring.surface import GIVEN_BACK, HANDED_OUT, poisons, restored_buffer

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
        """A Buffer of that shape, in bytes, holding whatever was there; `Buffer.fill_view` lets its maker write it."""
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
    """Read-only bytes, as one row or a table of records; see the surface for every method.

    `release` cannot free the memory while the object lives (an unseen view, held by C code, would read freed
    memory): it empties the Buffer, and the memory goes when the last reference to it does. As an operand it is no
    array: `data += buffer` is what `data` makes of bytes.
    """

    # Below that of a plain array: what numpy computes from Buffers is an array, not a Buffer.
    __array_priority__ = -1e6
    __hash__ = None

    _memory: Memory
    _block: memoryview
    _start: int
    _anchor: _Array
    _released = False

    def __new__(cls, *_: object) -> "Self":
        raise TypeError("a Buffer is made by a read; rangeio.from_bytes() makes a Reader of bytes you have")

    @property
    def nbytes_pinned(self) -> int:
        """Bytes of memory that this Buffer keeps from being reused."""
        return self._block.nbytes

    @property
    def released(self) -> bool:
        return self._released

    @property
    def nbytes(self) -> int:
        return 0 if self._released else self._anchor.nbytes

    @property  # type: ignore[misc]  # of an array it may be set
    def shape(self) -> tuple[int, ...]:
        return (0,) if self._released else super().shape

    def __len__(self) -> int:
        return self.shape[0]

    def fill_view(self) -> memoryview:
        """The memory, writable. Only for the maker of the Buffer, and only before anybody else has seen it."""
        return self._block[self._start : self._start + self.nbytes]

    def __getitem__(self, index: Any) -> Any:
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
        return self.tobytes()

    def tobytes(self, order: Any = "C") -> bytes:
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
        """A read-only array over the same memory. With `writable` always a copy: nothing here can prove it is alone."""
        self._check_usable()
        array: npt.NDArray[Any] = np.frombuffer(self._anchor, dtype=dtype)
        if writable:
            array = array.copy()
        if shape is None:
            whole = self.ndim == 2 and self.shape[1] and self.shape[1] % array.itemsize == 0
            shape = (self.shape[0], self.shape[1] // array.itemsize) if whole else (-1,)
        return array.reshape(shape)

    def compact(self) -> "Buffer":
        """Itself if it pins little more than its own bytes, else a copy that does."""
        self._check_usable()
        return self if self.nbytes_pinned <= 2 * max(self.nbytes, _PAGE) else self.__copy__()

    def __copy__(self) -> "Buffer":
        self._check_usable()
        copy = self._memory.allocate(*self.shape)
        copy.fill_view()[:] = self.fill_view()
        return copy

    def __deepcopy__(self, memo: object) -> "Buffer":
        return self.__copy__()

    def release(self) -> None:
        """Give the memory back. `BufferError` while views exist; a second call does nothing."""
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

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __dlpack__(self, **kwargs: Any) -> Any:
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
