"""A part of an array in a file, selected by integers and slices: where its bytes are, and how they are read.

Arrays are in C order here. What is selected is a box: a range of each dimension. Its bytes are runs of one length. The
runs along one dimension, the rows, are equally far from each other.
"""

import math
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rangeio.adapters.arrays import Bytes, fill, fresh
from rangeio.ranges import Offsets
from rangeio.reader import Reader

# Rows at most this many times their length apart are read together with what is between them,
_MOST_APART = 4
# where a read has no round trip, only if they are within a page.
_PAGE = 4096
# Bytes of one read of such rows, and of the reads in memory at a time, local and over a network.
_PIECE = 4 << 20
_LOCAL_WINDOW = 16 << 20
_FAR_WINDOW = 64 << 20
# Rows of one batch, and bytes where a read has no round trip: O_DIRECT needs as much memory again.
_BATCH = 1 << 18
_LOCAL_BATCH = 8 << 20


class Span(NamedTuple):
    """What is selected of one dimension."""

    start: int
    items: int
    step: int

    @property
    def covered(self) -> int:
        """The items from the first to the last that is selected."""
        return (self.items - 1) * self.step + 1 if self.items else 0


class Box(NamedTuple):
    """What is selected of an array of `shape`: the spans of its dimensions.

    selector: the index that makes the result of the box; it drops the dimensions of integers, and adds those of None.
    """

    shape: tuple[int, ...]
    spans: tuple[Span, ...]
    selector: tuple[Any, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The shape of the box."""
        return tuple(span.items for span in self.spans)


def select(index: Any, shape: tuple[int, ...]) -> Box:
    """The box of an index: an integer, a slice with a positive step, an Ellipsis, None, or a tuple of these.

    IndexError as of numpy, TypeError for any other index, ValueError for a step that is not positive.
    """
    items = index if type(index) is tuple else (index,)
    named = sum(item is not None and item is not Ellipsis for item in items)
    dots = sum(item is Ellipsis for item in items)
    if dots > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if named > len(shape):
        raise IndexError(f"too many indices: {named} for the shape {shape}")
    spans: list[Span] = []
    final: list[Any] = []
    for item in items if dots else (*items, Ellipsis):
        if item is None:
            final.append(None)
        elif item is Ellipsis:
            rest = shape[len(spans) : len(spans) + len(shape) - named]
            spans += [Span(0, size, 1) for size in rest]
            final += [slice(None)] * len(rest)
        else:
            final.append(slice(None) if isinstance(item, slice) else 0)
            spans.append(_span(item, len(spans), shape[len(spans)]))
    return Box(shape, tuple(spans), tuple(final))


def _span(item: Any, axis: int, size: int) -> Span:
    if isinstance(item, slice):
        start, stop, step = item.indices(size)
        if step < 1:
            raise ValueError(f"the step of a slice must be positive, not {step}")
        return Span(start, max(0, -(-(stop - start) // step)), step)
    if not is_integer(item):
        raise TypeError(
            f"{type(item).__name__} is not supported as an index; only integers, slices, '...' and None are"
        )
    number = operator.index(item)
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of bounds for axis {axis} with size {size}")
    return Span(number % size, 1, 1)


def is_integer(item: Any) -> bool:
    """Whether numpy takes it for a number: an array without dimensions, but no bool."""
    if getattr(item, "ndim", 0) or isinstance(item, (bool, np.bool_)):
        return False
    return hasattr(item, "__index__") and str(getattr(item, "dtype", "")) != "bool"


class _Rows(NamedTuple):
    """Runs of `length` bytes: the first is at `start`, those of each dimension `strides` apart."""

    start: int
    length: int
    counts: tuple[int, ...]
    strides: tuple[int, ...]

    def offsets(self, first: int, stop: int) -> Offsets:
        """Where the runs of these numbers are."""
        places = np.full(stop - first, self.start, np.int64)
        numbers = np.arange(first, stop)
        for count, stride in zip(reversed(self.counts), reversed(self.strides), strict=True):
            places += numbers % count * stride
            numbers //= count
        return places


def read_box(reader: Reader, place: int, item: int, box: Box) -> Bytes:
    """The bytes of a box of the array at `place`, with items of `item` bytes; memory of the caller's own."""
    nbytes = math.prod(box.counts) * item
    if nbytes == 0:
        return np.empty(0, np.uint8)
    sizes = [item * math.prod(box.shape[axis + 1 :]) for axis in range(len(box.shape))]
    partial = [axis for axis, span in enumerate(box.spans) if span != Span(0, box.shape[axis], 1)]
    last = partial[-1] if partial else 0
    span = box.spans[last] if box.spans else Span(0, 1, 1)
    inner = sizes[last] if sizes else item
    start = place + sum(one.start * size for one, size in zip(box.spans, sizes, strict=True))
    outer = [(one.items, one.step * size) for one, size in zip(box.spans[:last], sizes, strict=False)]
    if span.step > 1 and span.step * inner > _PAGE:  # each item is a row: what is between them is not read
        outer.append((span.items, span.step * inner))
        span = Span(span.start, 1, 1)
    rows = _Rows(start, span.covered * inner, *_merged(outer))
    found = fresh(math.prod(rows.counts) * rows.length, start, reader.capability.direct)
    _read_rows(reader, rows, found)
    if span.step > 1:
        found = np.ascontiguousarray(found.reshape(-1, span.covered, inner)[:, :: span.step]).reshape(-1)
    return found


def _merged(dimensions: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts and strides, where those of neighbouring dimensions that are equally far apart are one."""
    merged: list[tuple[int, int]] = []
    for count, stride in reversed(dimensions):
        if merged and stride == merged[-1][0] * merged[-1][1]:
            merged[-1] = count * merged[-1][0], merged[-1][1]
        elif count > 1:
            merged.append((count, stride))
    merged.reverse()
    return tuple(count for count, _ in merged), tuple(stride for _, stride in merged)


def _read_rows(reader: Reader, rows: _Rows, out: Bytes) -> None:
    count, length = math.prod(rows.counts), rows.length
    if count == 1:
        fill(reader, [(out, rows.start)])
        return
    near = reader.capability.positioned
    apart = rows.strides[-1]
    if apart <= _MOST_APART * length and (apart <= _PAGE or not near):
        _read_together(reader, rows, out.reshape(-1, length), _LOCAL_WINDOW if near else _FAR_WINDOW)
        return
    most = min(_BATCH, max(1, _LOCAL_BATCH // length)) if near else _BATCH
    for first in range(0, count, most):
        offsets = rows.offsets(first, min(first + most, count))
        reader.read_batch(offsets, length, out=out[first * length :][: len(offsets) * length])


def _read_together(reader: Reader, rows: _Rows, out: Bytes, window: int) -> None:
    """Read the rows with what is between them, a window at a time."""
    stride = rows.strides[-1]
    for pieces in _windows(rows, window):
        ranges = [(start, start + length) for _, start, length in pieces]
        found = reader.read_ranges(ranges, exact=True, gap=None)
        for (first, _, length), buffer in zip(pieces, found, strict=True):
            count = (length - rows.length) // stride + 1
            table = as_strided(buffer.numpy(), (count, rows.length), (stride, 1))
            out[first : first + count] = table


def _windows(rows: _Rows, window: int) -> Iterator[list[tuple[int, int, int]]]:
    pieces: list[tuple[int, int, int]] = []
    held = 0
    for piece in _pieces(rows):
        if held and held + piece[2] > window:
            yield pieces
            pieces, held = [], 0
        pieces.append(piece)
        held += piece[2]
    yield pieces


def _pieces(rows: _Rows) -> Iterator[tuple[int, int, int]]:
    """(number of the first row, offset, bytes) of reads of at most some MiB, or a row, of rows along one dimension."""
    count, stride = rows.counts[-1], rows.strides[-1]
    most = max(1, (_PIECE - rows.length) // stride + 1)
    for group in range(math.prod(rows.counts[:-1])):
        start = int(rows.offsets(group * count, group * count + 1)[0])
        for first in range(0, count, most):
            taken = min(most, count - first)
            yield group * count + first, start + first * stride, (taken - 1) * stride + rows.length
