"""Many reads over HTTP into memory: the rows of a table, and places of the caller. All are in flight at once."""

from collections.abc import Awaitable
from typing import Any

from _uring import yield_if_due
from rangeio.http.range_read import RangeRead
from rangeio.http.records import Records
from rangeio.ranges import Offsets
from rangeio.service import Counts, Into
from rangeio.services.engine_reads import EngineReads
from rangeio.services.tables import TableReads


class HttpTables(EngineReads, TableReads):
    """The part of an `HttpSource` that reads many ranges into memory. Each body is received in its place."""

    async def _batch(self, records: Records, asks: bool) -> Any:
        await yield_if_due()
        return await super()._batch(records, asks)

    def _fill(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        found: Counts = self._now(self.reads_into(views, starts), how.chunk, how.concurrent, how.each)
        return found

    async def _fill_awaited(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        reads = self.reads_into(views, starts)
        found: Counts = await self._awaited(reads, how.chunk, how.concurrent, how.each)
        return found

    def all_landed(self, reads: list[RangeRead], how: Into) -> Counts:
        """The results of reads of any objects."""
        found: Counts = self._now(reads, how.chunk, how.concurrent, True)
        return found

    def all_landed_async(self, reads: list[RangeRead], how: Into) -> Awaitable[Counts]:
        """The same, awaited."""
        found: Awaitable[Counts] = self._awaited(reads, how.chunk, how.concurrent, True)
        return found
