"""Pieces of one object in memory, found by their place; those that were not used for longest go first."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

Ranges = list[tuple[int, int]]


class Pieces:
    """Pieces that do not overlap, of `most` bytes in all. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._starts: list[int] = []
        self._held: OrderedDict[int, Any] = OrderedDict()  # by start; the last was used last
        self._total = 0

    def find(self, start: int, stop: int) -> tuple[list[tuple[int, Any]], Ranges]:
        """The pieces that have bytes of a range, with their starts, in order; and the parts that are in none."""
        found: list[tuple[int, Any]] = []
        missing = []
        for begin in self._starts[
            max(0, bisect_right(self._starts, start) - 1) : bisect_left(self._starts, stop)
        ]:
            data = self._held[begin]
            end = begin + len(data)
            if end <= start:
                continue
            if start < begin:
                missing.append((start, begin))
            self._held.move_to_end(begin)
            found.append((begin, data))
            start = end
        if start < stop:
            missing.append((start, stop))
        return found, missing

    def has(self, place: int) -> bool:
        """Whether one byte is held."""
        before = bisect_right(self._starts, place) - 1
        return before >= 0 and place < self._starts[before] + len(self._held[self._starts[before]])

    def put(self, start: int, data: Any) -> None:
        """Keep a piece; of what is held already, nothing."""
        if len(data) > self._most:
            return
        for first, last in self.find(start, start + len(data))[1]:
            whole = last - first == len(data)
            # A part would keep all of its memory.
            part = data if whole else bytes(data[first - start : last - start])
            # In this order, because another thread may fork between any two steps.
            self._held[first] = part
            self._total += last - first
            self._starts.insert(bisect_left(self._starts, first), first)
        while self._total > self._most:
            oldest = next(iter(self._held))
            del self._starts[bisect_left(self._starts, oldest)]
            self._total -= len(self._held.pop(oldest))

    def clear(self) -> None:
        """Let go of everything."""
        self._starts.clear()
        self._held.clear()
        self._total = 0


def united(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same bytes in as few ranges as possible, in order."""
    found: Ranges = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        elif start < stop:
            found.append((start, stop))
    return found


def cut(pieces: list[tuple[int, Any]], start: int, stop: int) -> Any:
    """The bytes of a range, up to the first that is in no piece: a part of one without a copy, or all joined."""
    parts = []
    for begin, data in pieces:
        if begin > start:
            break
        if (part := data[start - begin : stop - begin]) is not None and len(part):
            parts.append(part)
            start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
