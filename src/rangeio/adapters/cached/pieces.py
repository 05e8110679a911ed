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
        place = bisect_right(self._starts, start) - 1
        if place >= 0:
            begin = self._starts[place]
            data = self._held[begin]
            if stop <= begin + len(data):
                self._held.move_to_end(begin)
                return [(begin, data)], []
        found: list[tuple[int, Any]] = []
        missing = []
        for begin in self._starts[max(0, place) : bisect_left(self._starts, stop)]:
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
        place, stop = bisect_right(self._starts, start), start + len(data)
        if (place == 0 or not self.has(start)) and (
            place == len(self._starts) or stop <= self._starts[place]
        ):
            self._add(place, start, data)
        else:
            for first, last in self.find(start, stop)[1]:
                # A view of a part would keep all of its memory.
                part = bytes(data[first - start : last - start])
                self._add(bisect_left(self._starts, first), first, part)
        while self._total > self._most:
            oldest = next(iter(self._held))
            del self._starts[bisect_left(self._starts, oldest)]
            self._total -= len(self._held.pop(oldest))

    def _add(self, place: int, start: int, data: Any) -> None:
        # In this order, because another thread may fork between any two steps.
        self._held[start] = data
        self._total += len(data)
        self._starts.insert(place, start)

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
