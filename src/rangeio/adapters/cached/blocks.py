"""What a file over a network fetches and keeps: read-ahead, blocks, and the end of the object."""

import threading
from collections import deque
from collections.abc import Iterable
from mmap import mmap
from typing import Any, Protocol

from rangeio.adapters.cached.pieces import Pieces, Ranges, cut, united
from rangeio.adapters.cached.strides import Runs, Strides
from rangeio.adapters.cached.uncollected import without_collections
from rangeio.locks import begin_lock
from rangeio.ranges import Suffix
from rangeio.service import FAR, NEAR, Capability

TAIL = 64 << 10
"""Bytes that are fetched to learn the size: what pyarrow reads for a footer, and a third of a round trip's worth."""
PEEK = 8 << 10
"""The most that `peek` returns: a copy of it is made for each line."""
CACHE = 64 << 20
"""What HDF5 files, and fsspec's "blockcache", keep of an object unless they are told."""
BLOCK, LARGEST = 256 << 10, 4 << 20
EXACT = 64 << 10
"""A read of so many bytes of which none is held is fetched as it is, without what is around it."""
_BEFORE, _BEHIND = 16 << 10, 48 << 10
"""What is fetched around a place where a read is expected."""
_GROWTH = 4
# More than this is worth several connections, of which each gets at least a MiB.
_PIECE, _LARGE, _CHUNK = 1 << 20, 2 << 20, 8 << 20
_UNBOUNDED = 64 << 20  # memory for more is not taken before the size is known
CONNECTIONS = 16
"""The default number of requests in flight of one read."""


class Ranged(Protocol):
    """What is used of a Reader."""

    @property
    def read_ranges(self) -> Any:
        """See `Reader`."""
        ...

    @property
    def read_ranges_into(self) -> Any:
        """See `Reader`."""
        ...

    @property
    def read_range(self) -> Any:
        """See `Reader`."""
        ...

    @property
    def read_at(self) -> Any:
        """See `Reader`."""
        ...

    @property
    def path(self) -> str:
        """See `Reader`."""
        ...

    @property
    def size(self) -> int | None:
        """See `Reader`."""
        ...

    @property
    def capability(self) -> Capability:
        """See `Reader`."""
        ...

    def close(self) -> None:
        """See `Reader`."""
        ...


def spread_over(total: int) -> dict[str, int]:
    """The option `chunk` with which so many bytes use all connections; none if they are few."""
    if total <= _LARGE:
        return {}
    return {"chunk": min(_CHUNK, max(_PIECE, -(-total // CONNECTIONS)))}


class Blocks:
    """Bytes of one Reader at any position. Thread-safe: no lock is held while a request is on its way.

    most: maximum bytes of read-ahead, 0 for none; None for the default. spread: whether large reads are cut so that
    they use all connections, rather than by the Reader's `chunk`. cache: so many bytes are kept, and small reads fetch
    whole blocks, if the Reader reads over a network; without it only what was read ahead is kept, and nothing before a
    position is fetched.

    The size is not asked for: it comes with the first response, or with the last bytes of the object when it is needed
    first.
    """

    _lock: threading.RLock

    def __init__(self, reader: Ranged, most: int | None, *, spread: bool = True, cache: int = 0) -> None:
        begin_lock(self)
        self.reader = reader
        self.how = {"most": most, "spread": spread, "cache": cache}
        """The arguments, for another process."""
        self.far = not reader.capability.positioned
        self._spread = spread and self.far
        ahead = FAR if self.far else NEAR
        self._most = ahead.most if most is None else most
        self._cache = cache if self.far else 0
        if self._cache:
            self._most = min(self._most, cache // 4)
        self._first = min(BLOCK if self._cache else ahead.first, self._most)
        self._span = self._first
        self._next = -1
        self._answered = False  # a response has told the size
        self._size: int | None = None if self.far else reader.size
        self._pieces = Pieces(self._cache or max(self._most, TAIL))
        self._last: tuple[int, int, Any] = (0, 0, b"")  # the piece of the last read: where it begins and ends
        self._strides, self._runs = Strides(), Runs()
        self._small: deque[int] = deque(maxlen=4)
        self._block_size = BLOCK
        self.tail: tuple[int, Any] = (0, b"")
        """The last bytes of the object, and where they begin; nothing until they were read."""

    def size(self, at_least: int = 0) -> int:
        """The size. If it is not known yet, the last bytes are requested, `at_least` so many, and kept.

        With a cache the first block is requested in their place, unless bytes before the end are wanted.
        """
        if self._size is None and self._cache and at_least <= 0:
            self.read(0, 1)
        if self._size is None:
            known = self.reader.size if self._answered else self._fetch_tail(at_least) if self.far else None
            self._size = len(self.reader.read_range()) if known is None else known
        return self._size

    def _fetch_tail(self, at_least: int) -> int:
        data = self.reader.read_range(Suffix(min(max(TAIL, at_least), _CHUNK)))
        size = self.reader.size or 0
        with self._lock:
            self._pieces.put(size - len(data), data)
            self.tail = (size - len(data), data)
        return size

    def read(self, at: int, count: int) -> Any:
        """`count` bytes from `at`, fewer only at the end: a Buffer or bytes."""
        if count > _UNBOUNDED and self._size is None:
            self.size()
        if self._size is not None:
            count = max(0, min(count, self._size - at))
        if count == 0:
            return b""
        stop = at + count
        with self._lock:
            sequential, self._next = at == self._next, stop
            if self._cache and count >= EXACT:
                sequential = self._runs.goes_on(at, stop)
            begin, end, data = self._last
            if begin <= at and stop <= end:
                return data[at - begin : stop - begin]
            held, missing = self._pieces.find(at, stop)
            if not missing:
                begin, data = held[-1]
                self._last = begin, begin + len(data), data
                return cut(held, at, stop)
            wanted = (
                self._with_blocks(at, missing, sequential)
                if self._cache
                else self._ahead(missing, sequential)
            )
        fetched = self._fetch(wanted)
        if not held and len(wanted) == 1 and wanted[0][0] == at:  # as most are
            data = fetched[0]
            self._took(wanted, fetched, keep=self._cache > 0 or len(data) > count)
            return data[:count] if len(data) > count else data
        keep = self._cache or sum(map(len, fetched)) > sum(last - first for first, last in missing)
        self._took(wanted, fetched, keep=bool(keep))
        pieces = [*held, *((start, data) for (start, _), data in zip(wanted, fetched, strict=True))]
        return cut(sorted(pieces, key=lambda piece: piece[0]), at, stop)

    def peek(self, at: int, count: int) -> Any:
        """What is held from `at` on; if that is nothing, `count` bytes are read as by the next read."""
        with self._lock:
            held, _ = self._pieces.find(at, at + PEEK)
            before = self._next
        if len(found := cut(held, at, at + PEEK)):
            return found
        data = self.read(at, count)
        with self._lock:
            self._next = at if before == at else -1
            held, _ = self._pieces.find(at, at + PEEK)
        return cut(held, at, at + PEEK) or data

    def load(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges, all at once, and keep them, as far as there is room."""
        with self._lock:
            wanted = self._missing(ranges)
        self._took(wanted, self._fetch(wanted), keep=True)

    # --- what to fetch -------------------------------------------------------------------------------------------

    def _ahead(self, missing: Ranges, sequential: bool) -> Ranges:
        """One range, with what is read ahead."""
        self._span = min(self._span * _GROWTH, self._most) if sequential else self._first
        start, stop = missing[0][0], missing[-1][1]
        return [(start, max(stop, start + self._span))]

    def _with_blocks(self, at: int, missing: Ranges, sequential: bool) -> Ranges:
        """The missing parts, and the blocks around them or what is read ahead."""
        start, stop = missing[0][0], missing[-1][1]
        entirely = len(missing) == 1 and start == at
        if sequential:
            ahead = (start, max(stop, start + self._span))
            self._span = min(self._span * 2, self._most)
            return self._missing([*missing, ahead])
        self._span = self._first
        if entirely and stop - start >= EXACT:
            return self._missing([(start, max(stop, start + min(self._runs.likely(), self._most)))])
        places = self._strides.after(at) if entirely else []
        around = [(place - _BEFORE, place + stop - start + _BEHIND) for place in places]
        return self._missing([*missing, self._block(start, stop), *around])

    def _block(self, start: int, stop: int) -> tuple[int, int]:
        """The whole blocks around a range. They grow while the missing places are near each other, in any order."""
        if any(abs(start - before) <= 2 * self._block_size for before in self._small):
            self._block_size = max(BLOCK, min(2 * self._block_size, LARGEST, self._most))
        else:
            self._block_size = BLOCK
        self._small.append(start)
        size = self._block_size
        return start // size * size, -(-stop // size) * size

    def _missing(self, ranges: Iterable[tuple[int, int]]) -> Ranges:
        end = self._size
        within = [(max(0, start), stop if end is None else min(stop, end)) for start, stop in ranges]
        return [part for start, stop in united(within) for part in self._pieces.find(start, stop)[1]]

    # --- fetching ------------------------------------------------------------------------------------------------

    def _fetch(self, wanted: Ranges) -> list[Any]:
        if not self._cache and len(wanted) == 1:
            start, stop = wanted[0]
            if not (options := self.options_for(stop - start)):
                return [self.reader.read_at(start, stop - start)]
            return list(self.reader.read_ranges(wanted, **options))
        options = self.options_for(sum(stop - start for start, stop in wanted))
        # Not Buffers: they are of larger blocks of the core, which keeps what is free, so more than was promised.
        places = [memoryview(mmap(-1, stop - start)) for start, stop in wanted]
        starts = [start for start, _ in wanted]
        with without_collections():
            counts = (
                self.reader.read_ranges_into(zip(places, starts, strict=True), **options) if wanted else []
            )
        return [place[:count].toreadonly() for place, count in zip(places, counts, strict=True)]

    def _took(self, wanted: Ranges, fetched: list[Any], *, keep: bool) -> None:
        with self._lock:
            self._answered = True
            for (start, stop), data in zip(wanted, fetched, strict=True):
                if len(data) < stop - start and len(data) and self._size is None:
                    self._size = start + len(data)
                if keep and self._most and len(data):
                    self._pieces.put(start, data)
                    self._last = start, start + len(data), data
                if start + len(data) == self._size and len(self.tail[1]) <= len(data) <= _CHUNK:
                    self.tail = (start, data)

    def options_for(self, total: int) -> Any:
        """Options of a read of so many bytes."""
        return spread_over(total) if self._spread else {}

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._pieces.clear()
            self._last = (0, 0, b"")
            self.tail = (0, b"")
