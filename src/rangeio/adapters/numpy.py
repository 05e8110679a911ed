"""Arrays of .npy and .npz files, of which indexing reads a part, from any URI.

with rangeio.adapters.numpy.open_npy("s3://bucket/table.npy") as table:
    rows = table[[5, 17, 400]]
    whole = numpy.asarray(table)
with rangeio.adapters.numpy.open_npz("s3://bucket/arrays.npz") as arrays:
    part = arrays["a"][1000:2000]
"""

import ast
import math
import operator
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rangeio.adapters.arrays import fresh, opened, size_of
from rangeio.adapters.boxes import Box, Span, is_integer, read_box, select
from rangeio.from_here import from_bytes
from rangeio.reader import Reader

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["NpyArray", "NpzFile", "open_npy", "open_npz"]

Array = npt.NDArray[Any]

_MAGIC = b"\x93NUMPY"
# Bytes of the first request; headers are 128 bytes, or longer with many fields.
_FIRST = 4 << 10
_LEAST = 16
_MOST_HEADER = 1 << 20
# Bytes of a .npz file over a network that are kept while its list is read.
_KEPT = 4 << 20
_MOST_DIMENSIONS = 64
_MOST_BYTES = 1 << 62
# No stream of deflate is shorter than this part of what it holds.
_MOST_DEFLATED = 1040


def open_npy(uri: Any, **options: Any) -> "NpyArray":
    """The array of a .npy file. uri: a URI or path, or a Reader, which stays open. options: those of `rangeio.open`.

    Cost: one request for the header. ValueError if this is no valid .npy file, holds Python objects or is cut off.
    """
    reader = opened(uri, options)
    try:
        return NpyArray(reader)
    except BaseException:
        reader.close()
        raise


def open_npz(uri: Any, **options: Any) -> "NpzFile":
    """The arrays of a .npz file by name. uri, options: as for `open_npy`.

    Cost: the requests for the list of its members at the end of the file. ValueError if this is no zip file.
    """
    reader = opened(uri, options)
    try:
        return NpzFile(reader)
    except BaseException:
        reader.close()
        raise


class NpyArray:
    """An array in a file. Indexing reads what is selected, into memory of the caller's own; nothing is kept.

    ``x[i]``, ``x[a:b:step]``, ``x[..., a:b]`` and other basic indices read only the bytes of the part, in one request
    where they are contiguous. A list, an array of integers or a mask on the first axis reads those rows only, in one
    `read_batch`, each as often as it is named; in Fortran order the rows from the least to the greatest.
    Other indices read the whole array and index that. ``np.asarray(x)`` reads all.

    Threads may share it. It pickles as its Reader does: as URI and options, without secrets.
    """

    def __init__(self, reader: Reader, begin: bytes = b"") -> None:
        """It owns the Reader. begin: the first bytes, if they are known."""
        self._reader = reader
        self.dtype, self.fortran_order, self.shape, self._start = _read_header(reader, begin)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of items."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all items."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """What numpy would return, in memory of its own."""
        items = index if type(index) is tuple else (index,)
        if all(_is_basic(item) for item in items):
            found = self._box(select(items, self.shape))
            return found[()] if found.ndim == 0 and not any(item is Ellipsis for item in items) else found
        leading = self._leading(items[0]) if self.shape else None
        if leading is None:
            return np.asarray(self)[index]
        rows, place = leading
        return rows[(place, *items[1:])]

    def _leading(self, item: Any) -> tuple[Array, Any] | None:
        """The rows that an index of the first axis selects, and what selects them there; None for other indices."""
        count = self.shape[0]
        if isinstance(item, slice):
            numbers = range(count)[item]
            last, first = max(numbers, default=-1), min(numbers, default=0)
            order = slice(None, None, -1 if numbers.step < 0 else 1)
            return self[first : last + 1 : abs(numbers.step)], order
        if is_integer(item):
            number = select(item, self.shape).spans[0].start
            return self[number : number + 1], 0
        rows = _rows_of(item, count)
        return None if rows is None else self._rows(rows)

    def _box(self, box: Box) -> Array:
        """A box, in C order or as its file has it."""
        if not self.fortran_order:
            part: Array = self._items(box)[(*box.selector, ...)]
            return part
        turned = box._replace(shape=box.shape[::-1], spans=box.spans[::-1])
        found: Array = self._items(turned).T[(*box.selector, ...)]
        return found

    def _items(self, box: Box) -> Array:
        return _viewed(read_box(self._reader, self._start, self.dtype.itemsize, box), self.dtype, box.counts)

    def _rows(self, numbers: Array) -> tuple[Array, Array]:
        """Rows that are in memory, and where each of these is among them."""
        inner = self.shape[1:]
        length = math.prod(inner) * self.dtype.itemsize
        if numbers.size == 0 or length == 0:
            rest = tuple(Span(0, size, 1) for size in inner)
            some = Span(0, self.shape[0] if numbers.size else 0, 1)
            return self._box(Box(self.shape, (some, *rest), (slice(None),) * self.ndim)), numbers
        if self.fortran_order:
            first, last = int(numbers.min()), int(numbers.max())
            return self[first : last + 1], numbers - first
        rows = fresh(numbers.size * length)
        self._reader.read_batch(self._start + numbers.ravel() * length, length, out=rows)
        places = np.arange(numbers.size).reshape(numbers.shape)
        return _viewed(rows, self.dtype, (numbers.size, *inner)), places

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole array, read now. ValueError for ``copy=False``."""
        if copy is False:
            raise ValueError("the array is in a file: it cannot be had without a copy")
        found: Array = self._box(select((), self.shape))
        return found if dtype is None else found.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Any]:
        """The rows, each read when its turn comes."""
        return (self[number] for number in range(len(self)))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rangeio.NpyArray {self._reader.path!r} {self.dtype} {self.shape}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return NpyArray, (self._reader,)


class NpzFile(Mapping[str, NpyArray]):
    """The arrays of a .npz file. A member that is stored (`numpy.savez`) is read by ranges in place; one that is
    compressed (`numpy.savez_compressed`) is fetched and decompressed when it is named. Nothing is kept.
    """

    def __init__(self, reader: Reader) -> None:
        """It owns the Reader."""
        self._reader = reader
        reader.read_at(0, 4)  # tells the size
        try:
            with zipfile.ZipFile(reader.as_file(cache=_KEPT)) as members:
                found = members.infolist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise _refusal(reader, f"it is no zip file: {error}") from None
        self._members = {info.filename.removesuffix(".npy"): info for info in found}

    @property
    def files(self) -> list[str]:
        """The names, without ``.npy``."""
        return [*self._members]

    def __getitem__(self, name: str) -> NpyArray:
        """One array. KeyError if there is none of this name, ValueError if it is not valid."""
        info = self._members.get(name) or self._members.get(name.removesuffix(".npy"))
        if info is None:
            raise KeyError(f"{self._reader.path!r} has no array {name!r}")
        if info.flag_bits & 1:
            raise _refusal(self._reader, f"{name!r} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED:
            return NpyArray(from_bytes(self._decompressed(info)))
        # Its own header, whose length the list does not tell, and that of the array, in one request.
        head = self._reader.read_at(info.header_offset, _FIRST).tobytes()
        start = self._start(info, head)
        begin = head[start - info.header_offset :][: info.file_size]
        return NpyArray(self._reader.slice(start, start + info.file_size), begin)

    def _start(self, info: zipfile.ZipInfo, head: bytes) -> int:
        """Where the bytes of a member begin. head: its first bytes."""
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        start = info.header_offset + 30 + lengths
        if head[:4] != b"PK\3\4" or start + info.file_size > size_of(self._reader):
            raise _refusal(self._reader, f"{info.filename!r} is not where the list says")
        return start

    def _decompressed(self, info: zipfile.ZipInfo) -> bytes:
        # numpy writes no other; a few bytes of bzip2 may be gigabytes.
        if info.compress_type != zipfile.ZIP_DEFLATED:
            raise _refusal(self._reader, f"{info.filename!r} is compressed by method {info.compress_type}")
        if info.file_size > _MOST_DEFLATED * info.compress_size:
            raise _refusal(self._reader, f"{info.filename!r} cannot be as long as the list says")
        try:
            with zipfile.ZipFile(self._reader.as_file(cache=_KEPT)) as members:
                return members.read(info)
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise _refusal(self._reader, f"{info.filename!r}: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def close(self) -> None:
        """Close the file, and the arrays that are read in place."""
        self._reader.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rangeio.NpzFile {self._reader.path!r} {self.files}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return NpzFile, (self._reader,)


def _is_basic(item: Any) -> bool:
    if isinstance(item, slice):
        return item.step is None or operator.index(item.step) > 0
    return item is None or item is Ellipsis or is_integer(item)


def _rows_of(item: Any, count: int) -> Array | None:
    """The rows that a list or an array selects, none negative; None if it selects no rows."""
    if not isinstance(item, (list, np.ndarray)):
        return None
    array = np.asarray(item)
    if array.ndim == 0:
        return None
    if array.dtype == bool and array.shape == (count,):
        return array.nonzero()[0]
    if isinstance(item, list) and not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        return None
    wrong = (array < -count) | (array >= count)
    if wrong.any():
        raise IndexError(f"index {array[wrong][0]} is out of bounds for axis 0 with size {count}")
    numbers = array.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers)


def _viewed(data: Array, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> Array:
    if data.size == 0:  # also of items without bytes
        return np.empty(shape, dtype)
    return data.view(dtype).reshape(shape)


# --- the header ----------------------------------------------------------------------------------------------


def _refusal(reader: Reader, reason: str) -> ValueError:
    return ValueError(f"{reader.path!r} cannot be read as arrays of numpy: {reason}")


def _read_header(reader: Reader, begin: bytes) -> "tuple[np.dtype[Any], bool, tuple[int, ...], int]":
    """The dtype, whether the order is Fortran's, the shape, and where the items begin."""
    if len(begin) < _LEAST:
        begin = reader.read_at(0, _FIRST).tobytes()
    size = size_of(reader)
    if begin[:6] != _MAGIC:
        raise _refusal(reader, "it does not begin as a .npy file")
    version = begin[6:8]
    if version not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _refusal(reader, f"it is of format {version.hex('.')}, but 1 to 3 are known")
    before = 10 if version == b"\1\0" else 12
    length = int.from_bytes(begin[8:before], "little")
    if len(begin) < before or before + length > size:
        raise _refusal(reader, "it ends within its header")
    if length > _MOST_HEADER:
        raise _refusal(reader, f"its header is {length} bytes long, more than {_MOST_HEADER}")
    raw = begin[before : before + length]
    if len(raw) < length:
        raw += reader.read_exact(before + len(raw), length - len(raw)).tobytes()
    try:
        dtype, fortran_order, shape = _parsed(raw.decode("utf-8" if version == b"\3\0" else "latin-1"))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError) as error:
        raise _refusal(reader, f"its header is wrong: {error}"[:400]) from None
    start = before + length
    if start + math.prod(shape) * dtype.itemsize > size:
        raise _refusal(reader, f"it is cut off: {shape} of {dtype} do not fit into its {size} bytes")
    return dtype, fortran_order, shape, start


def _parsed(text: str) -> "tuple[np.dtype[Any], bool, tuple[int, ...]]":
    content = ast.literal_eval(text)
    if not isinstance(content, dict) or content.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("it is not a dict of descr, fortran_order and shape")
    fortran_order, shape = content["fortran_order"], content["shape"]
    if not isinstance(fortran_order, bool):
        raise ValueError("fortran_order is neither True nor False")
    if not isinstance(shape, tuple) or not all(type(count) is int and count >= 0 for count in shape):
        raise ValueError("the shape is not a tuple of whole numbers")
    dtype = np.lib.format.descr_to_dtype(content["descr"])
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which may run any code when they are read")
    if dtype.subdtype is not None:
        raise ValueError("its items are arrays")
    # Without zeros, which would hide that the other dimensions are impossible.
    if (
        len(shape) > _MOST_DIMENSIONS
        or math.prod(filter(None, shape)) * max(1, dtype.itemsize) >= _MOST_BYTES
    ):
        raise ValueError("the shape is too large")
    return dtype, fortran_order and len(shape) > 1, shape
