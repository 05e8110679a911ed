"""A Parquet file that learns which columns are read, and fetches those of the next row groups together.

pyarrow asks a Python file for one column chunk after the other, with one mutex per file, so each costs a round trip.
The footer tells where the chunks are. The chunks that are read of the first row group are those that are wanted; from
the second on, one read of several ranges fetches what was asked and what is likely to be asked next.
"""

import sys
import threading
from bisect import bisect_right
from collections import OrderedDict
from hashlib import sha256
from typing import Any

from rangeio.adapters.cached.blocks import TAIL, Blocks
from rangeio.errors import Error
from rangeio.locks import begin_lock

HOLE = 8 << 10
"""pyarrow joins chunks that are at most so far apart (arrow::io::CacheOptions)."""
MOST = 128 << 20
_MOST_LAYOUTS = 64
_LARGE = 16 << 20
"""A read that fills all connections for long by itself gains nothing from a guess."""


class Layout:
    """Where the column chunks of one file are, row group by row group; looked up when a row group is first read."""

    def __init__(self, metadata: Any) -> None:
        """metadata: a pyarrow.parquet.FileMetaData with at least one row group and column."""
        self._metadata = metadata
        self._chunks: dict[int, list[tuple[int, int]]] = {}
        self.count: int = metadata.num_row_groups
        self._starts = [_extent(metadata.row_group(group).column(0))[0] for group in range(self.count)]

    def group_at(self, offset: int) -> int:
        """The row group that has the byte; -1 before the first."""
        return bisect_right(self._starts, offset) - 1

    def chunks(self, group: int) -> list[tuple[int, int]]:
        """(start, stop) of each column chunk of a row group."""
        found = self._chunks.get(group)
        if found is None:
            columns = self._metadata.row_group(group)
            found = [_extent(columns.column(place)) for place in range(columns.num_columns)]
            self._chunks[group] = found
        return found

    def within(self, start: int, stop: int) -> dict[int, set[int]] | None:
        """The columns of each row group that the range consists of; None if it does not begin and end with a chunk."""
        first, last = self.group_at(start), self.group_at(stop - 1)
        if first < 0:
            return None
        begins = any(chunk[0] == start for chunk in self.chunks(first))
        ends = any(chunk[1] == stop for chunk in self.chunks(last))
        if not (begins and ends):
            return None
        return {
            group: {
                place
                for place, chunk in enumerate(self.chunks(group))
                if start <= chunk[0] and chunk[1] <= stop
            }
            for group in range(first, last + 1)
        }


def _extent(column: Any) -> tuple[int, int]:
    start = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    return start, start + column.total_compressed_size


class Layouts:
    """The layouts of the files of one file system, by path and by the end of the file, which is different in another
    version of it. Thread-safe.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, bytes], Layout | None] = OrderedDict()

    def get(self, key: tuple[str, int, bytes]) -> Layout | None:
        """The layout, if the footer was read before."""
        return self._known.get(key)

    def put(self, key: tuple[str, int, bytes], layout: Layout) -> None:
        """Remember one; the oldest is forgotten."""
        self._known[key] = layout
        while len(self._known) > _MOST_LAYOUTS:
            try:
                self._known.popitem(last=False)
            except KeyError:
                break


class _Kept:
    """A fetched range that was not asked for yet."""

    __slots__ = ("data", "left", "start", "stop")

    def __init__(self, start: int, data: Any) -> None:
        self.start, self.stop, self.data = start, start + len(data), data
        self.left = len(data)


class Columns:
    """The reads of one Parquet file; any other file is read as `Blocks` does.

    A guess fetches at most as many bytes as were rightly read before, and 128 MiB. It is kept until it is asked for,
    and dropped then. Thread-safe; reads of column chunks wait for each other, as pyarrow has them do anyway.
    """

    _lock: threading.RLock

    def __init__(self, blocks: Blocks, path: str, layouts: Layouts) -> None:
        begin_lock(self)
        self._blocks, self._path, self._layouts = blocks, path, layouts
        self._layout: Layout | None = None
        self._wanted: set[int] = set()
        self._first: int | None = None
        self._right = 0
        self._kept: list[_Kept] = []
        self._done: dict[int, set[int]] = {}

    def read(self, at: int, count: int) -> Any:
        """Like `Blocks.read`."""
        with self._lock:
            layout = self._layout
            columns = layout.within(at, at + count) if layout is not None and count else None
            if layout is None or columns is None:
                data = self._blocks.read(at, count)
                if layout is None:
                    self._look_for_footer(at, data)
                return data
            return self._read_chunks(layout, at, count, columns)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()

    # --- the footer ----------------------------------------------------------------------------------------------

    def _look_for_footer(self, at: int, data: Any) -> None:
        if "pyarrow" not in sys.modules:
            return  # who else reads Parquet does not read as pyarrow does
        start, tail = self._blocks.tail
        end = bytes(tail[-8:])
        if len(end) < 8 or end[4:] != b"PAR1":
            return
        size = start + len(tail)
        length = int.from_bytes(end[:4], "little")
        key = (self._path, size, sha256(bytes(tail[-TAIL:])).digest())
        known = self._layouts.get(key)
        place = size - 8 - length
        for begin, held in ((start, tail), (at, data)):
            if known is None and place > 0 and begin <= place and place + length <= begin + len(held):
                known = _parsed(bytes(held[place - begin : place - begin + length]))
                if known is not None:
                    self._layouts.put(key, known)
        self._layout = known

    # --- column chunks -------------------------------------------------------------------------------------------

    def _read_chunks(self, layout: Layout, at: int, count: int, columns: dict[int, set[int]]) -> Any:
        group = min(columns)
        if self._first is None:
            self._first = group
        no_range: list[tuple[int, int]] = []
        if at >= self._blocks.tail[0]:  # a small file: its end is held already
            pieces, missing = [(at, self._blocks.read(at, count))], no_range
        else:
            pieces, missing = self._from_memory(at, at + count)
        guesses = self._guesses(layout, group, columns) if missing and self._may_guess(columns, count) else []
        if missing:
            ranges = [*missing, *((start, stop) for start, stop, _, _ in guesses)]
            fetched = self._fetch(ranges, len(missing))
            pieces += [(start, data) for (start, _), data in zip(missing, fetched, strict=False)]
            for (start, _, of, places), data in zip(guesses, fetched[len(missing) :], strict=True):
                self._kept.append(_Kept(start, data))
                self._done.setdefault(of, set()).update(places)
        self._right += count
        for of, places in columns.items():
            self._wanted |= places
            self._done.setdefault(of, set()).update(places)
        pieces.sort(key=lambda piece: piece[0])
        return pieces[0][1] if len(pieces) == 1 else b"".join(data for _, data in pieces)

    def _may_guess(self, columns: dict[int, set[int]], count: int) -> bool:
        return self._first is not None and max(columns) > self._first and count < _LARGE

    def _fetch(self, ranges: list[tuple[int, int]], needed: int) -> list[Any]:
        total = sum(stop - start for start, stop in ranges)
        options = self._blocks.options_for(total)
        reader = self._blocks.reader
        if needed == len(ranges):
            return list(reader.read_ranges(ranges, gap=0, **options))
        found = reader.read_ranges(ranges, gap=0, **options, on_error="return")
        for place, result in enumerate(found):
            if isinstance(result, Error):
                if place < needed:
                    raise result
                found[place] = b""  # type: ignore[call-overload]  # a guess that failed is asked for again, if at all
        return list(found)

    def _from_memory(self, start: int, stop: int) -> tuple[list[tuple[int, Any]], list[tuple[int, int]]]:
        """What is kept of a range, which is dropped, and the rest of it."""
        pieces: list[tuple[int, Any]] = []
        missing = []
        at = start
        for kept in sorted(self._kept, key=lambda kept: kept.start):
            if kept.stop <= at or kept.start >= stop:
                continue
            if at < kept.start:
                missing.append((at, kept.start))
                at = kept.start
            until = min(stop, kept.stop)
            whole = at == kept.start and until == kept.stop
            pieces.append((at, kept.data if whole else kept.data[at - kept.start : until - kept.start]))
            kept.left -= until - at
            at = until
        if at < stop:
            missing.append((at, stop))
        self._kept = [kept for kept in self._kept if kept.left > 0]
        return pieces, missing

    def _guesses(
        self, layout: Layout, group: int, asked: dict[int, set[int]]
    ) -> list[tuple[int, int, int, set[int]]]:
        """(start, stop, row group, columns) of what is likely to be asked for next."""
        # What was guessed wrongly stays, and leaves the less for the next guess. Nothing is unlearned by order: pyarrow
        # may read one column of all row groups, then the next, and its threads read row groups out of order. So what is
        # kept counts from the second guess on: one that is late must not hold up the next.
        most = min(self._right, MOST)
        left = min(most, 2 * most - sum(kept.left for kept in self._kept))
        found: list[tuple[int, int, int, set[int]]] = []
        for of in range(group, layout.count):
            chunks = layout.chunks(of)
            without = self._done.get(of, set()) | asked.get(of, set())
            places = [place for place in self._wanted - without if place < len(chunks)]
            for place in sorted(places, key=lambda place: chunks[place]):
                start, stop = chunks[place]
                if start >= self._blocks.tail[0]:
                    continue
                left -= stop - start
                if left < 0:
                    return found
                last = found[-1] if found else None
                if last is not None and last[2] == of and 0 <= start - last[1] <= HOLE:
                    left -= start - last[1]
                    found[-1] = (last[0], stop, of, last[3] | {place})
                else:
                    found.append((start, stop, of, {place}))
        return found


def _parsed(footer: bytes) -> Layout | None:
    """The layout in a footer; None if pyarrow does not understand it, or if the file has no chunks."""
    import pyarrow
    from pyarrow import parquet

    whole = b"".join((b"PAR1", footer, len(footer).to_bytes(4, "little"), b"PAR1"))
    try:
        metadata = parquet.read_metadata(pyarrow.BufferReader(whole))
        return Layout(metadata) if metadata.num_row_groups and metadata.num_columns else None
    except (pyarrow.ArrowException, OSError, ValueError):
        return None  # encrypted, or not a Parquet file after all: pyarrow says so itself
