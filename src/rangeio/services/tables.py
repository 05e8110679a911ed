"""Records of one length, and places of the caller, as reads of a Source: what sources over a network do alike."""

from collections.abc import Awaitable
from typing import Any, SupportsIndex

from _uring import ready
from _uring.arguments import byte_array, byte_index
from rangeio.awaitables import by_await
from rangeio.http.records import Records
from rangeio.ranges import Offsets
from rangeio.service import Counts, Into, Travels
from rangeio.services.runs import Runs


class TableReads(Travels):
    """The part of a Source that makes one read for each run of rows or of places. A Source has `_read` (start,
    count, index, memory), `_now` and `_awaited`, which wait for the results of reads, and `_fill` and `_fill_awaited`,
    which fill places that do not follow each other.
    """

    _reactor: Any
    size: Any
    stat: Any
    stat_async: Any
    _read: Any
    _now: Any
    _awaited: Any
    _fill: Any
    _fill_awaited: Any

    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        records = Records(self.path, starts, count, out)
        self._check_open(None, None)
        size = self.stat().size if starts.size and count and self.size is None else self.size
        with self._runs(records, size) as runs:
            return records.filled(runs.counts(self._now(self.reads_into(runs.views, runs.starts))))

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        return self._if_open_batch(Records(self.path, starts, count, out), bool(starts.size and count))

    @by_await
    def _if_open_batch(self, records: Records, asks: bool) -> Awaitable[Any]:
        self._check_open(None, None)
        return self._batch(records, asks)

    async def _batch(self, records: Records, asks: bool) -> Any:
        size = (await self.stat_async()).size if asks and self.size is None else self.size
        with self._runs(records, size) as runs:
            return records.filled(runs.counts(await self._awaited(self.reads_into(runs.views, runs.starts))))

    def _runs(self, records: Records, size: int | None) -> Runs:
        """The rows of the records; none if they are empty."""
        rows = records.rows(self._reactor, size)
        return Runs(rows, records.starts[: len(rows)])

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        self._check_open(None, None)
        with Runs(views, starts) as runs:
            return runs.counts(self._fill(runs.views, runs.starts, how))

    def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Awaitable[Counts]:
        self._check_open(None, None)
        return self._runs_awaited(views, starts, how) if views else ready([])

    async def _runs_awaited(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        with Runs(views, starts) as runs:
            return runs.counts(await self._fill_awaited(runs.views, runs.starts, how))

    def reads_into(self, views: list[memoryview], starts: Offsets) -> list[Any]:
        """One read for each place."""
        places = enumerate(zip(views, starts.tolist(), strict=True))
        return [self._read(start, len(view), index, view) for index, (view, start) in places]
