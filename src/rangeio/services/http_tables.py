"""Many reads over HTTP into memory: the rows of a table, and places of the caller. All are in flight at once."""

from collections.abc import Awaitable
from typing import Any, SupportsIndex

from _uring import yield_if_due
from _uring.arguments import byte_array, byte_index
from rangeio.awaitables import by_await
from rangeio.http.range_read import RangeRead
from rangeio.http.records import Records
from rangeio.ranges import Offsets
from rangeio.service import Counts, Into
from rangeio.services.engine_reads import EngineReads


class HttpTables(EngineReads):
    """The part of an `HttpSource` that reads many ranges into memory. Each body is received in its place."""

    size: Any
    stat: Any
    stat_async: Any
    _read: Any

    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        records = Records(self.path, starts, count, out)
        self._check_open(None, None)
        size = self.stat().size if starts.size and count and self.size is None else self.size
        return records.filled(self._now(self._rows(records, size)))

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        return self._if_open_batch(Records(self.path, starts, count, out), bool(starts.size and count))

    @by_await
    def _if_open_batch(self, records: Records, asks: bool) -> Awaitable[Any]:
        self._check_open(None, None)
        return self._batch(records, asks)

    async def _batch(self, records: Records, asks: bool) -> Any:
        await yield_if_due()
        size = (await self.stat_async()).size if asks and self.size is None else self.size
        return records.filled(await self._awaited(self._rows(records, size)))

    def _rows(self, records: Records, size: int | None) -> list[RangeRead]:
        """One read for each record, into its row."""
        rows = records.rows(self._reactor, size)
        return [self._read(start, len(row), index, row) for index, (start, row) in enumerate(rows)]

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        self._check_open(None, None)
        found: Counts = self._now(self.reads_into(views, starts), how.chunk, how.concurrent, how.each)
        return found

    def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Awaitable[Counts]:
        self._check_open(None, None)
        found: Awaitable[Counts] = self._awaited(
            self.reads_into(views, starts), how.chunk, how.concurrent, how.each
        )
        return found

    def reads_into(self, views: list[memoryview], starts: Offsets) -> list[RangeRead]:
        """One read for each place."""
        places = enumerate(zip(views, starts.tolist(), strict=True))
        return [self._read(start, len(view), index, view) for index, (view, start) in places]

    def all_landed(self, reads: list[RangeRead], how: Into) -> Counts:
        """The results of reads of any objects."""
        found: Counts = self._now(reads, how.chunk, how.concurrent, True)
        return found

    def all_landed_async(self, reads: list[RangeRead], how: Into) -> Awaitable[Counts]:
        """The same, awaited."""
        found: Awaitable[Counts] = self._awaited(reads, how.chunk, how.concurrent, True)
        return found
