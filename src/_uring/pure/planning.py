"""What is worked out over many ranges at once, by numpy: their spellings as numbers, the requests that serve them, the
results. `_uring.planning` is the same, compiled.

All arrays are of int64, contiguous. 100,000 ranges are planned in some 20 to 35 ms; compiled, in 3.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from struct import Struct
from struct import error as StructError
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from _uring.arguments import OFFSET_MAX, one_destination, refuse_overlap

Offsets: TypeAlias = npt.NDArray[np.int64]

# A result that keeps more than this many times its own bytes alive is copied out of the merged response.
_COMPACT_ABOVE = 4


def pairs(items: Sequence[Any]) -> tuple[Offsets, Offsets] | None:
    """The columns of a list or tuple of (int, int), or None if anything in it needs a closer look.

    The types are looked at because a `range` is a sequence too. Packing takes what has __index__ and refuses floats,
    None, strings and huge numbers, at a fifth of the cost of a loop.
    """
    if not set(map(type, items)) <= {tuple, list} or set(map(len, items)) != {2}:
        return None
    numbers = list(chain.from_iterable(items))
    try:
        packed = Struct(f"{len(numbers)}q").pack(*numbers)
    except (StructError, TypeError, ValueError, OverflowError):
        return None
    starts, stops = np.frombuffer(packed, np.int64).reshape(-1, 2).T.copy()
    return starts, stops


def columns(table: npt.NDArray[np.integer[Any]]) -> tuple[Offsets, Offsets]:
    """The columns of an integer array of shape (n, 2), whose numbers fit."""
    starts, stops = table.T.astype(np.int64, order="C")
    return starts, stops


def destinations(items: Iterable[Any], name: str) -> tuple[list[memoryview], Offsets]:
    """Pairs of a buffer and an offset, as views of bytes and an array of the offsets. Errors name the first wrong one.

    TypeError, BufferError, ValueError and OverflowError as of `read_into`; ValueError also if two overlap in memory.
    """
    checked = [one_destination(item, name, index) for index, item in enumerate(items)]
    views = [view for view, _ in checked]
    places = [(np.frombuffer(view, np.uint8).ctypes.data, index) for index, view in enumerate(views) if view]
    places.sort()
    for (before, first), (at, second) in pairwise(places):
        if at < before + len(views[first]):
            refuse_overlap(name, *sorted((first, second)))
    return views, np.array([offset for _, offset in checked], np.int64)


def first_wrong(starts: Offsets, stops: Offsets) -> int:
    """The index of the first range that is negative, or starts after it stops; -1 if there is none."""
    wrong = (starts < 0) | (starts > stops)
    return int(wrong.argmax()) if wrong.any() else -1


def within(starts: Offsets, stops: Offsets, size: int, is_told: bool) -> tuple[Offsets, Offsets]:
    """Ranges cut off at `size`; the same arrays if none passes it. is_told: those that start there or later stay."""
    if not (stops > size).any():
        return starts, stops
    if is_told:
        return starts, np.where(starts < size, np.minimum(stops, size), stops)
    return np.minimum(starts, size), np.minimum(stops, size)


def shifted(starts: Offsets, lengths: Offsets, origin: int, size: int) -> tuple[Offsets, Offsets]:
    """Starts and lengths of ranges in a part of an object, `size` bytes from `origin`, as those of the object."""
    within = np.minimum(starts, size)
    return within + origin, np.minimum(lengths, size - within)


def sizes(starts: Offsets, stops: Offsets) -> tuple[Offsets, int]:
    """The length of each, and of those together that do not stop at OFFSET_MAX: at most that, too."""
    lengths = stops - starts
    return lengths, min(sum(lengths[stops != OFFSET_MAX].tolist()), OFFSET_MAX)


def merge(
    starts: Offsets, stops: Offsets, gap: int, max_merged: int | None
) -> tuple[Offsets, Offsets, Offsets] | None:
    """The requests that cover all ranges, and for each range the index of its request (-1 for an empty range). None
    if no two ranges are merged.

    Two ranges are joined if at most `gap` bytes lie between them: 0 joins those that touch or overlap. Ranges that do
    not overlap are not joined beyond `max_merged` bytes; those that do always are, as each byte is fetched once.

    The requests are sorted and disjoint, each starts and stops where some range does, and without `max_merged` any two
    are more than `gap` apart.
    """
    live = np.flatnonzero(starts < stops)
    if not live.size:
        return None
    order = live[np.argsort(starts[live])]
    first, last = starts[order], stops[order]
    most = OFFSET_MAX if max_merged is None else min(max_merged, OFFSET_MAX)
    heads = _heads(first, np.maximum.accumulate(last), min(gap, OFFSET_MAX), most)
    if bool(np.all(heads)):
        return None
    assigned = np.full(starts.size, -1, dtype=np.int64)
    assigned[order] = np.cumsum(heads) - 1
    begins = np.flatnonzero(heads)
    return first[begins], np.maximum.reduceat(last, begins), assigned


def _heads(first: Offsets, reach: Offsets, gap: int, max_merged: int) -> npt.NDArray[np.bool_]:
    """Which of the ranges, sorted by start, begins a request. `reach`: the furthest stop so far."""
    distance = first[1:] - reach[:-1]
    heads = np.concatenate(([True], distance > gap))
    # Between ranges that overlap no request can begin, so clusters of them are the atoms of what follows.
    atoms = np.flatnonzero(np.concatenate(([True], distance >= 0)))
    start, stop = first[atoms], reach[np.append(atoms[1:], first.size) - 1]
    begins = np.flatnonzero(heads[atoms])
    ends = np.append(begins[1:], atoms.size)
    if bool(np.all(stop[ends - 1] - start[begins] <= max_merged)):
        return heads
    # Cut greedily: from each atom as far as max_merged allows, but within its group and at least itself.
    limit = start + np.minimum(max_merged, OFFSET_MAX - start)
    jump = np.minimum(np.searchsorted(stop, limit, side="right"), np.repeat(ends, ends - begins))
    follow = np.maximum(jump, np.arange(1, atoms.size + 1)).tolist()
    cuts, atom = [], 0
    while atom < atoms.size:
        cuts.append(atom)
        atom = follow[atom]
    heads[:] = False
    heads[atoms[cuts]] = True
    return heads


def members(assigned: Offsets, requests: int) -> tuple[list[int], list[int]]:
    """The indices of the ranges, those of request 0 first, the empty ones last; and where in that those of each request
    begin, with the place of the empty ones and the end behind them.
    """
    owners = np.where(assigned < 0, requests, assigned)
    order = np.argsort(owners, kind="stable")
    return order.tolist(), np.searchsorted(owners[order], np.arange(requests + 2)).tolist()


def cut(response: Any, origin: int, indices: list[int], starts: Offsets, stops: Offsets) -> list[Any]:
    """The results of the ranges `indices`, all those of one request that starts at `origin`, out of its response.

    Without a copy: only a slice that would keep more than four times its own bytes alive is copied. A response shorter
    than its request ends where the object does; each range is then cut on its own.
    """
    if len(indices) == 1:
        return [response]  # alone, a range is its request
    whole = len(response)
    bounds = zip((starts[indices] - origin).tolist(), (stops[indices] - origin).tolist(), strict=True)
    pieces = [response[start:stop] for start, stop in bounds]
    return [piece.compact() if whole > _COMPACT_ABOVE * len(piece) else piece for piece in pieces]


def scatter(
    assigned: Offsets,
    origins: Offsets,
    starts: Offsets,
    stops: Offsets,
    responses: list[Any],
    make_empty: Callable[[], Any],
) -> list[Any]:
    """The result of each range, in order: `cut` out of the response of its request, which starts at `origins`."""
    order, firsts = members(assigned, origins.size)
    results: list[Any] = [None] * len(order)
    for request, (response, origin) in enumerate(zip(responses, origins.tolist(), strict=True)):
        indices = order[firsts[request] : firsts[request + 1]]
        for index, result in zip(indices, cut(response, origin, indices, starts, stops), strict=True):
            results[index] = result
    for index in order[firsts[-2] :]:
        results[index] = make_empty()
    return results


def total_bytes(buffers: list[Any]) -> int:
    """How many all of them have."""
    return sum(map(len, buffers))


def shorter(results: list[Any], starts: Offsets, stops: Offsets) -> list[int]:
    """The indices of those that have fewer bytes than their range; none of exceptions, and of ranges that go on to the
    end, whatever that is.
    """
    lengths = np.where(stops == OFFSET_MAX, 0, stops - starts).tolist()
    return [
        index
        for index, (result, length) in enumerate(zip(results, lengths, strict=True))
        if not isinstance(result, BaseException) and len(result) < length
    ]
