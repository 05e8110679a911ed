"""Reads at a constant distance, such as the index of one HDF5 dataset after the other: what comes next."""

from collections import OrderedDict, deque
from typing import Any

_FIRST, _MOST = 4, 16
_REMEMBERED = 16
_NEAR = 32 << 10
"""How far from where it was expected the next one may be: where other things lie in between now and then."""


class Strides:
    """The places of the small reads that had to wait. Two equal distances, to the byte, tell the next places; a
    distance that was right before is believed at once.

    Several rows of places may be read in turn. Not thread-safe.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self._expected: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._known: OrderedDict[int, None] = OrderedDict()

    def after(self, at: int) -> list[int]:
        """The places that are probably read after this one: 4, then 8, then 16."""
        distance, count = self._continued(at) or (self._distance(at), _FIRST // 2)
        self._recent.append(at)
        if not distance:
            return []
        count = min(2 * count, _MOST)
        _add(self._known, distance, None)
        _add(self._expected, at + (count + 1) * distance, (distance, count))
        places = [at + step * distance for step in range(1, count + 1)]
        return [place for place in places if place >= 0]

    def _continued(self, at: int) -> tuple[int, int] | None:
        """The distance and length of the row of which this place is the next; None if it is of no row."""
        nearest = min(self._expected, key=lambda place: abs(place - at), default=None)
        if nearest is None or abs(nearest - at) > _NEAR:
            return None
        return self._expected.pop(nearest)

    def _distance(self, at: int) -> int:
        """From the place before to this one, if it is a known one, or that from the one before that; else 0."""
        recent = set(self._recent)
        rows = [
            at - before
            for before in recent
            if before != at and (at - before in self._known or 2 * before - at in recent)
        ]
        return min(rows, key=abs, default=0)


class Runs:
    """Large reads that follow each other, such as the chunks of one row of a slab. Not thread-safe."""

    def __init__(self) -> None:
        self._start = self._next = -1
        self._lengths: deque[int] = deque([0, 0], maxlen=2)

    def goes_on(self, at: int, stop: int) -> bool:
        """Whether a read begins where the last one ended."""
        follows = at == self._next
        if not follows:
            self._lengths.append(self._next - self._start)
            self._start = at
        self._next = stop
        return follows

    def likely(self) -> int:
        """How long a run is that begins now: the shorter of the last two."""
        return min(self._lengths)


def _add(known: "OrderedDict[int, Any]", key: int, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
