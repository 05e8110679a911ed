"""Planning: the meaning of ranges, the requests that cover them, and how results are cut out of the responses.

Nothing here does I/O, so sync and async readers share it. All ranges are half-open, in bytes. An unknown end (an open
range of an object of unknown size) is `OPEN`, the largest possible offset: reads end where the object does.

What is done for each of many ranges is done by the core (`_uring.planning`), or by numpy where there is none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from _uring import planning
from _uring.arguments import OFFSET_MAX, byte_index
from rangeio.notebook import table

if TYPE_CHECKING:
    from _uring import Buffer

Offsets: TypeAlias = npt.NDArray[np.int64]

_MOST_SHOWN = 20

OPEN = OFFSET_MAX
"""The stop of an open-ended range while the size is unknown."""


class UnprovenSize(int):
    """A size that a service reported without sending a byte of the object, as with HEAD.

    Ranges are planned with it as with any size, except that a range at or past it is still requested: only the
    service can tell that it is empty.
    """


def proven(size: int | None) -> int | None:
    """`size` if it is proven, else None."""
    return None if isinstance(size, UnprovenSize) else size


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last `n` bytes of an object: all of it if it is smaller, none if `n` is 0."""

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", byte_index(self.n, "Suffix"))


Range: TypeAlias = (
    tuple[SupportsIndex, SupportsIndex | None] | Sequence[SupportsIndex] | slice | Suffix | None
)
"""(start, stop), with stop None for the end; a slice or a range with step 1; `Suffix(n)`; None for the whole object."""

Ranges: TypeAlias = Iterable[Range] | npt.NDArray[np.integer[Any]]
"""Many ranges: any iterable of `Range`, or an integer array of shape (n, 2)."""


RangeList: TypeAlias = Sequence[Range] | npt.NDArray[np.integer[Any]]


def listed(ranges: Ranges) -> RangeList:
    """`ranges` as something that can be gone through twice."""
    if isinstance(ranges, (list, tuple)) and type(ranges) in (list, tuple):
        return ranges
    return ranges if isinstance(ranges, np.ndarray) else list(ranges)


def needs_size(ranges: RangeList) -> bool:
    """Whether one of `ranges` counts from the end, so that the size must be known first."""
    return not isinstance(ranges, np.ndarray) and any(isinstance(item, Suffix) for item in ranges)


def bounds(spelling: Range, size: int | None) -> tuple[int, int]:
    """The (start, stop) of a range, clipped to `size` if it is known.

    ValueError: negative, start after stop, a step other than 1, a Suffix while `size` is None. TypeError: anything but
    integers. OverflowError: 2**63 and more. A range that ends or starts past the end is not an error; a range that
    starts past an `UnprovenSize` is not clipped.
    """
    if spelling is None:
        start, stop = 0, OPEN
    elif isinstance(spelling, Suffix):
        if size is None:
            raise ValueError(f"{spelling} counts from the end, but the size is not known")
        start, stop = size - min(spelling.n, size), int(size)
    elif isinstance(spelling, (slice, range)):
        if spelling.step not in (None, 1):
            raise ValueError(f"the step of a range must be 1, not {spelling.step}")
        start, stop = _pair(0 if spelling.start is None else spelling.start, spelling.stop)
    elif isinstance(spelling, (str, bytes)) or not isinstance(spelling, (Sequence, np.ndarray)):
        raise TypeError(
            f"{spelling!r} is not a range; pass (start, stop), a slice, a range, Suffix(n) or None"
        )
    elif len(spelling) != 2:
        raise ValueError(f"a range must be (start, stop), not {len(spelling)} numbers")
    else:
        start, stop = _pair(*spelling)
    if size is None or (isinstance(size, UnprovenSize) and start >= size):
        return start, stop
    return min(start, int(size)), min(stop, int(size))


def _pair(first: SupportsIndex, last: SupportsIndex | None) -> tuple[int, int]:
    start = byte_index(first, "start")
    stop = OPEN if last is None else byte_index(last, "stop")
    if start > stop:
        raise ValueError(f"start {start} is after stop {stop}")
    return start, stop


def bounds_of_file(spelling: Range, size: int | None) -> tuple[int, int]:
    """Like `bounds`, but an open end stays open if the size is an `UnprovenSize`: a file asks when it needs the end."""
    start, stop = bounds(spelling, size)
    is_open = not isinstance(spelling, Suffix) and bounds(spelling, None)[1] == OPEN
    return start, OPEN if is_open and isinstance(size, UnprovenSize) else stop


def bounds_of_many(ranges: RangeList, size: int | None) -> tuple[Offsets, Offsets]:
    """`bounds` of each range, as two arrays. Errors name the index of the first invalid range."""
    if isinstance(ranges, np.ndarray):
        return _checked(_columns(ranges), size)
    return _checked(planning.pairs(ranges) or _any_pairs(ranges, size), size)


def _checked(columns: tuple[Offsets, Offsets], size: int | None) -> tuple[Offsets, Offsets]:
    starts, stops = columns
    index = planning.first_wrong(starts, stops)
    if index >= 0:
        _bounds_at(index, (int(starts[index]), int(stops[index])), size)
    return _cut_off(starts, stops, size)


def _cut_off(starts: Offsets, stops: Offsets, size: int | None) -> tuple[Offsets, Offsets]:
    """Ranges within `size`, as `bounds` has them."""
    return (
        (starts, stops)
        if size is None
        else planning.within(starts, stops, int(size), isinstance(size, UnprovenSize))
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """Ranges with checked arguments, which can be laid out once the size is known."""

    items: RangeList
    starts: Offsets
    stops: Offsets
    needs_size: bool

    def within(self, size: int | None) -> tuple[Offsets, Offsets]:
        """The result of `bounds_of_many` for `size`."""
        if self.needs_size:
            return bounds_of_many(self.items, size)
        return _cut_off(self.starts, self.stops, size)

    def demands(self) -> tuple[Offsets, Offsets]:
        """Where each range starts and stops, whatever the size; of a Suffix nothing is demanded."""
        starts, stops = self.starts, self.stops
        if self.needs_size:
            pairs = [(0, 0) if isinstance(item, Suffix) else bounds(item, None) for item in self.items]
            starts, stops = planning.columns(np.array(pairs, np.int64))
        return starts, stops


def check(ranges: Ranges) -> Checked:
    """Check ranges without a size; raises the errors of `bounds_of_many`."""
    items = listed(ranges)
    plain = None if isinstance(items, np.ndarray) else planning.pairs(items)
    if plain is not None:
        return Checked(items, *_checked(plain, None), False)
    counted = needs_size(items)
    if counted:
        items = list(items)  # iterated again later; the caller may change its own list meanwhile
    starts, stops = bounds_of_many(items, 0 if counted else None)
    return Checked(items, starts, stops, counted)


def _any_pairs(ranges: Sequence[Range], size: int | None) -> tuple[Offsets, Offsets]:
    pairs = [_bounds_at(index, item, size) for index, item in enumerate(ranges)]
    return np.array([start for start, _ in pairs], np.int64), np.array([stop for _, stop in pairs], np.int64)


def _bounds_at(index: int, spelling: Range, size: int | None) -> tuple[int, int]:
    try:
        return bounds(spelling, size)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(f"ranges[{index}]: {error}") from None


def _columns(table: npt.NDArray[Any]) -> tuple[Offsets, Offsets]:
    if table.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if table.dtype.kind not in "iu":
        raise TypeError(f"ranges must be integers, not {table.dtype}")
    if table.ndim != 2 or table.shape[1] != 2:
        raise ValueError(f"an array of ranges must have shape (n, 2), not {table.shape}")
    if table.dtype.kind == "u" and int(table.max()) > OPEN:
        raise OverflowError(f"ranges must be below 2**63, got {table.max()}")
    return planning.columns(table)


def split(start: int, stop: int, chunk: int | None) -> list[tuple[int, int]]:
    """`start` to `stop` in pieces of at most `chunk` bytes, in order. An open-ended range is not split."""
    if chunk is None or stop - start <= chunk or stop == OPEN:
        return [(start, stop)] if start < stop else []
    return [(at, min(at + chunk, stop)) for at in range(start, stop, chunk)]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which requests cover which ranges: request k is starts[k] to stops[k]; range i is part of request assigned[i]."""

    wanted_starts: Offsets
    wanted_stops: Offsets
    starts: Offsets
    stops: Offsets
    lengths: Offsets
    """Bytes of each request."""
    nbytes: int
    """In all requests, as far as they are known."""
    assigned: Offsets | None
    """-1 for an empty range. None: each range is one request, in the given order; the responses are the results."""
    gap: int | None
    """The gap the ranges were merged with."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing was merged."""
        return self.assigned is None

    def members(self) -> tuple[list[int], list[int]]:
        """See `planning.members`; of what was merged only."""
        assert self.assigned is not None
        return planning.members(self.assigned, self.starts.size)

    def served_by(self, request: int) -> int:
        """The first range that a request serves."""
        return request if self.assigned is None else int((self.assigned == request).argmax())


def lay_out(starts: Offsets, stops: Offsets, *, gap: int | None, max_merged: int | None) -> Layout:
    """Decide the requests for ranges given by `bounds_of_many`: see `planning.merge`. gap: None joins nothing at all,
    not even equal ones.

    If nothing merges, the requests are the ranges themselves, including empty ones: these cost no I/O, and removing
    them would cost more than keeping them.
    """
    merged = None if gap is None else planning.merge(starts, stops, gap, max_merged)
    requests, ends, assigned = merged or (starts, stops, None)
    return Layout(starts, stops, requests, ends, *planning.sizes(requests, ends), assigned, gap)


def scatter(layout: Layout, responses: list["Buffer"], make_empty: "Callable[[], Buffer]") -> list["Buffer"]:
    """The result of each range, in order; the responses themselves where nothing was merged."""
    if layout.assigned is None:
        return responses
    return planning.scatter(
        layout.assigned, layout.starts, layout.wanted_starts, layout.wanted_stops, responses, make_empty
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests that reading some ranges sends.

    requests: (path, offset, length) in bytes; length None if the range is open-ended and the size unknown. assigned:
    for each range the index of its (first) request, None for an empty range, which needs none. bytes_requested: total
    of the ranges, shared bytes counted repeatedly. bytes_fetched: total of the requests. Both omit unknown lengths.
    parallel: maximum number of requests in flight. gap: maximum number of bytes between two ranges of one request; for
    "auto" its current value.
    """

    requests: list[tuple[str, int, int | None]] = field(repr=False)
    assigned: list[int | None] = field(repr=False)
    bytes_requested: int
    bytes_fetched: int
    largest_request: int
    parallel: int
    gap: int | None

    @property
    def read_amplification(self) -> float:
        """Bytes fetched per requested byte: 1.0 is ideal, less if ranges overlap, 0.0 if no bytes are requested."""
        return self.bytes_fetched / self.bytes_requested if self.bytes_requested else 0.0

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.assigned)} ranges -> {len(self.requests)} requests,"
            f" bytes_requested={self.bytes_requested}, bytes_fetched={self.bytes_fetched},"
            f" read_amplification={self.read_amplification:.3f}, largest_request={self.largest_request},"
            f" parallel={self.parallel}, gap={self.gap})"
        )

    def _repr_html_(self) -> str:
        """The first requests, for notebooks."""
        counts = Counter(self.assigned)
        rows = [
            (path, offset, "to the end" if length is None else length, counts[index])
            for index, (path, offset, length) in enumerate(self.requests[:_MOST_SHOWN])
        ]
        left = len(self.requests) - len(rows)
        title = repr(self) + (f"; {left:,} more requests are not shown" if left else "")
        return table(title, ("object", "offset", "length", "ranges"), rows)


def make_plan(
    path: str, layout: Layout, *, origin: int = 0, chunk: int | None, concurrent: int | None
) -> Plan:
    """The Plan of a layout whose requests are sent in pieces of `chunk` bytes, `concurrent` at a time.

    origin: the position of the layout's offset 0 in the object at `path`.
    """
    requests: list[tuple[str, int, int | None]] = []
    firsts: list[int | None] = []
    for start, stop in zip(layout.starts.tolist(), layout.stops.tolist(), strict=True):
        firsts.append(len(requests) if start < stop else None)
        if chunk is not None and stop - start > chunk and stop != OPEN:
            requests += [(path, origin + at, end - at) for at, end in split(start, stop, chunk)]
        elif start < stop:
            requests.append((path, origin + start, None if stop == OPEN else stop - start))
    lengths = [length for _, _, length in requests if length is not None]
    known = layout.wanted_stops < OPEN
    return Plan(
        requests=requests,
        assigned=firsts
        if layout.assigned is None
        else [None if request < 0 else firsts[request] for request in layout.assigned.tolist()],
        bytes_requested=sum((layout.wanted_stops - layout.wanted_starts)[known].tolist()),
        bytes_fetched=sum(lengths),
        largest_request=max(lengths, default=0),
        parallel=min(len(requests), concurrent or len(requests)),
        gap=layout.gap,
    )
