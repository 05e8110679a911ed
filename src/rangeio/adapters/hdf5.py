"""HDF5 files, read by h5py through rangeio: ``hdf5.open("s3://bucket/data.h5")``, ``hdf5.read(dataset, selection)``.

Needs h5py (``pip install 'rangeio[hdf5]'``).
"""

import atexit
import io
import itertools
import os
import weakref
from collections.abc import Iterator
from typing import Any

try:
    import h5py
    import numpy as np
except ImportError as error:
    raise ImportError(f"h5py is missing ({error}): pip install 'rangeio[hdf5]'") from error

from rangeio.adapters.boxes import select
from rangeio.adapters.cached.blocks import CACHE
from rangeio.errors import UnexpectedEofError, UnsupportedError
from rangeio.operator import Operator
from rangeio.reader import Reader
from rangeio.services.registry import located

__all__ = ["open", "read"]

_SIGNATURE = 8
_MOST_ROWS = 1 << 16
_HOLE = 64 << 10
_WINDOW = 16 << 20

Box = tuple[tuple[int, int], ...]
"""The first index and the one after the last, of each axis."""


def open(uri: str | os.PathLike[str] | Reader, cache: int = CACHE, **options: Any) -> "h5py.File":
    """Open an HDF5 file for reading, as an h5py.File. Closing that closes everything.

    cache: over a network, so many bytes of what was read are kept; see `Reader.as_file`. options: those of
    `rangeio.open`. A Reader may be given in place of a URI, and stays open.

    Errors are those of rangeio, also of later reads. What leads to another file, an external link or a virtual dataset,
    raises UnsupportedError when it is read, because h5py would look for it in this one.
    """
    if isinstance(uri, Reader):
        if options:
            raise TypeError("options are those of the Reader, when one is given")
        reader = uri.slice(0)
    else:
        scheme, own, path = located(uri)
        reader = Operator(scheme, **own, **options).open(path)
    driven = _Driven(reader, cache)
    try:
        return driven.opened()
    except BaseException:
        driven.close()
        raise


def read(dataset: Any, selection: Any = ()) -> Any:
    """``dataset[selection]`` of an h5py.Dataset, whose chunks are fetched all at once, in place of one after the other.

    The places of the chunks come from the index in the file. What is selected by other things than integers and slices
    of step 1 is indexed as usual, and so is what is not of a file that `open` has opened. UnsupportedError if the data
    is in another file.
    """
    if dataset.external or (
        dataset.is_virtual and any(s.file_name != "." for s in dataset.virtual_sources())
    ):
        raise UnsupportedError(f"{dataset.name!r}: its data is in other files, which rangeio does not open")
    driven = _DRIVEN.get(h5py.h5f.get_name(dataset.id).decode(errors="replace"))
    asked = _boxed(dataset, selection) if driven is not None else None
    if driven is None or asked is None:
        return dataset[selection]
    box, selector = asked
    windows = [*_windows(dataset, box, driven.most)]
    if len(windows) == 1:
        driven.load(windows[0][1])
        return dataset[selection]
    out: Any = None
    for part, ranges in windows:
        driven.load(ranges)
        found = dataset[tuple(slice(*axis) for axis in part)]
        if out is None:
            # Items of an array type have dimensions of their own.
            shape = [*(stop - start for start, stop in box), *found.shape[len(box) :]]
            out = np.empty(shape, found.dtype)
        out[tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(part, box, strict=True))] = found
    return out[selector]


# --- what h5py reads from ------------------------------------------------------------------------------------


class _Driven:
    """What h5py calls. Its name is that of its h5py.File, by which a dataset leads back to it."""

    def __init__(self, reader: Reader, cache: int) -> None:
        self._reader = reader
        self._file = reader.as_file(cache=cache)
        self._far = not reader.capability.positioned and cache > 0
        self._path = ascii(reader.path)
        self._is_open = False
        self.most = min(_WINDOW, cache // 4) if self._far else _WINDOW
        """How many bytes of chunks are fetched together."""
        self.seek, self.tell, self.read = self._file.seek, self._file.tell, self._file.read
        _DRIVEN[repr(self)] = self

    def opened(self) -> "h5py.File":
        """The file."""
        file = h5py.File(self, "r")
        self._is_open = True
        return file

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. h5py does not look at what this returns."""
        if self._is_open and len(buffer) == _SIGNATURE and self._file.tell() == 0:
            # h5py opens another file with the driver of this one, which knows no names: it would read this one again.
            raise UnsupportedError(
                f"{self._path}: an external link or a virtual dataset leads to another file"
            )
        got = self._file.readinto(buffer)
        if got < len(buffer):
            raise UnexpectedEofError(
                f"{self._path}: the file ends within a read of {len(buffer)} bytes", path=self._reader.path
            )
        return got

    def load(self, ranges: list[tuple[int, int]]) -> None:
        """Fetch ranges before h5py asks for them; of a local file, tell the kernel."""
        if self._far:
            self._file.load(ranges)  # type: ignore[attr-defined]
        else:
            self._reader.prefetch(ranges)

    def write(self, data: Any) -> int:
        """Not supported."""
        raise io.UnsupportedOperation("not writable: rangeio is read-only")

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the object."""
        self._file.close()
        self._reader.close()

    def __repr__(self) -> str:
        return f"<rangeio.adapters.hdf5 {self._path} at {id(self):#x}>"


_DRIVEN: "weakref.WeakValueDictionary[str, _Driven]" = weakref.WeakValueDictionary()


@atexit.register
def _close_all() -> None:
    """HDF5 closes what is still open after the interpreter has ended, and would call methods that are gone."""
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_GROUP | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_ATTR
    for found in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, kinds) if _DRIVEN else ():
        if found.valid and h5py.h5f.get_name(found).decode(errors="replace") in _DRIVEN:
            h5py.File(h5py.h5i.get_file_id(found)).close()


# --- what is selected, and where it is -----------------------------------------------------------------------


def _boxed(dataset: "h5py.Dataset", selection: Any) -> tuple[Box, tuple[Any, ...]] | None:
    """The box that is selected, and the index that drops the axes of integers; None if h5py has to say."""
    if not dataset.shape:
        return None
    try:
        box = select(selection, dataset.shape)
    except (IndexError, TypeError, ValueError):
        return None  # an error of h5py's own, or one of its other kinds of index
    if None in box.selector or any(span.step != 1 or not span.items for span in box.spans):
        return None
    return tuple((span.start, span.start + span.items) for span in box.spans), box.selector


def _windows(dataset: "h5py.Dataset", box: Box, most: int) -> Iterator[tuple[Box, list[tuple[int, int]]]]:
    """Parts of a box, in order, and where their bytes are: at most so many, unless one chunk has more."""
    chunks = dataset.chunks
    if chunks is None:
        yield box, _rows(dataset, box)
        return
    grid = [range(start // size, -(-stop // size)) for (start, stop), size in zip(box, chunks, strict=True)]
    size = int(np.prod(chunks)) * dataset.dtype.itemsize
    most_chunks = max(1, most // size)
    axis = max(range(len(grid)), key=lambda axis: len(grid[axis]))
    if np.prod([len(places) for places in grid]) <= most_chunks or len(grid[axis]) == 1:
        yield box, _chunks(dataset, grid)
        return
    middle = (grid[axis].start + len(grid[axis]) // 2) * chunks[axis]
    start, stop = box[axis]
    yield from _windows(dataset, (*box[:axis], (start, middle), *box[axis + 1 :]), most)
    yield from _windows(dataset, (*box[:axis], (middle, stop), *box[axis + 1 :]), most)


def _chunks(dataset: "h5py.Dataset", grid: list[range]) -> list[tuple[int, int]]:
    """Where the chunks are; one that was never written is nowhere."""
    places = itertools.product(*grid)
    sizes = dataset.chunks
    infos = (
        dataset.id.get_chunk_info_by_coord(tuple(at * size for at, size in zip(place, sizes, strict=True)))
        for place in places
    )
    return [
        (info.byte_offset, info.byte_offset + info.size) for info in infos if info.byte_offset is not None
    ]


def _rows(dataset: "h5py.Dataset", box: Box) -> list[tuple[int, int]]:
    """Where the bytes of a contiguous dataset are: each run of elements that follow each other, joined if near."""
    origin, itemsize, shape = dataset.id.get_offset(), dataset.dtype.itemsize, dataset.shape
    if origin is None:  # compact, or never written
        return []
    inner = len(shape) - 1  # the axes after it are selected whole
    while inner and box[inner] == (0, shape[inner]):
        inner -= 1
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    if np.prod([stop - start for start, stop in box[:inner]]) > _MOST_ROWS:
        return []
    length = (box[inner][1] - box[inner][0]) * steps[inner] * itemsize
    found: list[tuple[int, int]] = []
    for outer in itertools.product(*(range(*axis) for axis in box[:inner])):
        place = sum(at * step for at, step in zip((*outer, box[inner][0]), steps, strict=False))
        start = origin + place * itemsize
        if found and start - found[-1][1] <= _HOLE:
            found[-1] = (found[-1][0], start + length)
        else:
            found.append((start, start + length))
    return found
