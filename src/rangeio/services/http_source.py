"""The source of one object over the engine in `rangeio.http`."""

import time
from collections.abc import Awaitable, Generator, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import _uring
from _uring.arguments import byte_index, writable_bytes
from _uring.event_loops import current_key
from _uring.records import MEASURED, Unfinished
from rangeio.awaitables import by_await, checkpoint
from rangeio.errors import Error, from_native
from rangeio.http import awaited_reads
from rangeio.http.connection_pool import PER_HOST, HeldConnections
from rangeio.http.drivers import LoopDriver, ThreadDriver
from rangeio.http.engine import Engine
from rangeio.http.error_mapping import guarded
from rangeio.http.range_read import Probe, RangeRead, SuffixRead
from rangeio.http.remote_object import RemoteObject
from rangeio.http.steady import is_plain, read_waiting, steady_reads
from rangeio.http.validation import Version, http_date
from rangeio.options import Options
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets
from rangeio.service import FAR, Capability, Destination, ReadAhead, Stat
from rangeio.services.http_options import CONCURRENT, GAP
from rangeio.services.http_tables import HttpTables

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor
    from _uring.records import SteadyReads
    from _uring.waiters import Waiter


class HttpSource(HttpTables):
    """One object on a server. The first read sends the first request."""

    def __init__(self, reactor: "Reactor", remote: RemoteObject, options: Options) -> None:
        self._reactor = reactor
        self._remote = remote
        self._options = options
        self._most = options.chunk or OPEN  # bytes of one request
        self._pool = remote.access.pool
        self._closed = False
        self._steady: SteadyReads | None = None
        self._pool.use()

    @property
    def path(self) -> str:
        return self._remote.shown

    @property
    def read_ahead(self) -> ReadAhead:
        return FAR

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def size(self) -> int | None:
        return self._remote.size

    @property
    def capability(self) -> Capability:
        suffix = self._remote.suffix_ranges and self._remote.ranges_alike
        return Capability(
            positioned=False, suffix=suffix, list=False, pin=self._remote.told_by, backend="http"
        )

    # --- one range -------------------------------------------------------------------------------------------

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        steady = self._steady  # another thread may clear it
        found: Any = None if steady is None else steady.read_at(offset, limit)
        if found is None:
            start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
            found = self._one(self._read(start, count))
        elif isinstance(found, Unfinished):
            found = self._go_on(found)
        return found  # type: ignore[no-any-return]  # one more call would cost a tenth

    def read_suffix(self, count: int) -> "Buffer | None":
        self._check_open(None, None)
        read = self._suffix(count)
        return None if read is None else self._now([read])[0]  # type: ignore[no-any-return]

    async def read_suffix_async(self, count: int) -> "Buffer | None":
        """See `Source`."""
        self._check_open(None, None)
        read = self._suffix(count)
        return None if read is None else (await self._awaited([read]))[0]

    def _suffix(self, count: int) -> SuffixRead | None:
        """A read of the last bytes; None if their place is known, or cannot be asked for."""
        remote = self._remote
        if not count or self.size is not None or not self.capability.suffix or remote.kept is not None:
            return None
        return SuffixRead(self._reactor, remote, count, self._options.timeout)

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        steady = self._steady
        found: Any = None if steady is None else steady.read_into(view, start)
        if found is None:
            found = self._one(self._read(start, len(view), into=view))
        elif isinstance(found, Unfinished):
            found = self._go_on(found, view)
        return int(found)

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        steady = self._steady
        found = None if steady is None else _uring.awaited_at(steady, offset, limit, self)
        if found is None:
            found = self._if_open(byte_index(offset, "offset"), byte_index(limit, "limit"))
        return found  # type: ignore[no-any-return]

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        if (steady := self._steady) is None:
            return self._if_open(start, len(view), view)
        return _uring.awaited(steady, start, len(view), view, self, True)  # type: ignore[no-any-return]

    @by_await
    def _if_open(self, start: int, count: int, into: memoryview | None = None) -> Awaitable[Any]:
        self._check_open(start, count)
        return self.read_soon(start, count, into)

    async def read_soon(self, start: int, count: int, into: memoryview | None = None) -> Any:
        """Read, even if this was closed meanwhile. See `Reader` in `_uring.records`."""
        read = self._made(start, start + count, into=into)
        del into  # the traceback of an error holds this frame, which must not hold the memory
        try:
            if is_plain(read, self._most):
                result = await awaited_reads.result_of(self._steady_now(), read, self, self._run)
                if result is not None:
                    return result
            return (await self._awaited([read]))[0]
        finally:
            read.let_go()

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        read = self._read(offset, limit)
        plain = is_plain(read, chunk or self._most)
        if plain and awaited_reads.begin(self._steady_now(), read, waiter, self, self._run):
            return
        awaited, driver = awaited_reads.Adopted(waiter), LoopDriver(current_key())
        awaited.engine = run = self._run(driver, awaited.landed, chunk, wanted=lambda: not waiter.done())
        run.add(read)

    def otherwise(self, found: Any, start: int, stop: int, into: memoryview | None, *who: Any) -> Any:
        """See `Reader` in `_uring.records`."""
        return awaited_reads.otherwise(found, self._unusual(start, stop, into), self._run, *who)

    def _read(self, start: int, count: int, index: int = 0, into: memoryview | None = None) -> RangeRead:
        self._check_open(start, count)
        return self._made(start, start + count, index, into)

    def _made(self, start: int, stop: int, index: int = 0, into: memoryview | None = None) -> RangeRead:
        if stop > OPEN:
            stop = OPEN
        return RangeRead(self._reactor, self._remote, index, start, stop, into, self._options.timeout)

    # --- many ------------------------------------------------------------------------------------------------

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        began, width = time.monotonic(), self._width(concurrent or self._options.concurrent)
        buffers: list[Buffer] = []
        begun: list[tuple[int, Unfinished]] | None = []
        while begun == [] and len(buffers) < len(starts):
            steady = self._steady_for(lengths, chunk)
            begun = None if steady is None else steady.read_many(starts, lengths, buffers, width, began)
        if len(buffers) == len(starts) and not begun:
            return buffers
        return self._rest(starts, lengths, buffers, begun or [], chunk, concurrent, began)

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        self._check_open(None, None)
        return self._awaited(self._reads(starts, lengths), chunk, concurrent)

    def fetch_each(
        self,
        starts: Offsets,
        lengths: Offsets,
        *,
        chunk: int | None,
        concurrent: int | None,
        ordered: bool = False,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        self._check_open(None, None)
        held, width = HeldConnections(), concurrent or CONCURRENT
        if ordered:
            found = self._each(held, self._reads(starts, lengths), chunk, width, ordered, [])
        else:
            found = self._each_small(held, starts, lengths, chunk, width)
        self._pool.iterates(found, held)
        return found

    def _reads(self, starts: Offsets, lengths: Offsets, first: int = 0) -> list[RangeRead]:
        """Make the reads from that index on, even if this was closed meanwhile."""
        pairs = zip(starts[first:].tolist(), lengths[first:].tolist(), strict=True)
        return [
            self._made(start, start + length, index) for index, (start, length) in enumerate(pairs, first)
        ]

    def _each_small(
        self, held: HeldConnections, starts: Offsets, lengths: Offsets, chunk: int | None, concurrent: int
    ) -> "Generator[tuple[int, Buffer | Error]]":
        """Read in the steady state until a response is not plain; the engine makes the rest."""
        began, first = time.monotonic(), 0
        unfinished: list[tuple[int, Unfinished]] = []
        while not unfinished and first < len(starts):
            steady = self._steady_for(lengths, chunk)
            if steady is None:
                break
            batch = steady.iter_many(starts, lengths, first, self._width(concurrent), began)
            if batch is None:
                break
            try:
                held.count = partial(self._width, concurrent)
                yield from iter(batch.next, None)
                unfinished, first = batch.unfinished(), batch.begun
            finally:
                batch.close()
        if first == len(starts) and not unfinished:
            return
        begun = [(self._made(piece.start, piece.stop, index), piece) for index, piece in unfinished]
        reads = self._reads(starts, lengths, first)
        yield from self._each(held, reads, chunk, concurrent, False, begun, began)

    def _width(self, concurrent: int | None) -> int:
        """The number of connections that the core uses at once."""
        return min(concurrent or CONCURRENT, PER_HOST)

    def _each(
        self,
        held: HeldConnections,
        reads: list[RangeRead],
        chunk: int | None,
        concurrent: int,
        ordered: bool,
        unfinished: list[tuple[RangeRead, Unfinished]],
        began: float | None = None,
    ) -> "Generator[tuple[int, Buffer | Error]]":
        """Yield results as they complete; at most `concurrent` reads are in flight or wait to be yielded. unfinished:
        reads that are in flight already, yielded as well; began: the time at which they began.
        """
        landed: dict[int, Any] = {}
        with self._named():
            driver = ThreadDriver()
        run = self._run(driver, landed.__setitem__, chunk, concurrent, began=began)
        held.count = run.held
        try:
            begun, before = 0, len(unfinished)
            run.expect(len(reads))
            run.adopt_all(unfinished)
            for given in range(-before, len(reads)):
                while begun < min(len(reads), given + concurrent):
                    run.add(reads[begun])
                    reads[begun] = None  # type: ignore[call-overload]  # the consumer owns it now
                    begun += 1
                run.touch()
                while not (given in landed if ordered else landed):
                    driver.step()
                index = given if ordered else next(iter(landed))
                if isinstance(landed[index], BaseException) and not isinstance(landed[index], Error):
                    raise landed.pop(index)  # out of memory: raised, not returned for one range
                run.rest()
                yield index, landed.pop(index)
        finally:
            run.cancel()
            driver.close()
            landed.clear()  # the traceback of an error may hold this frame

    def near(self) -> int:
        measured = self._pool.latency(self._remote.target.origin).gap()
        return GAP if measured is None else measured

    # --- what it is ------------------------------------------------------------------------------------------

    def stat(self) -> Stat:
        self._check_open(None, None)
        probe = Probe(self._reactor, self._remote, self._options.timeout)
        return self._told(probe, self._now([probe])[0])

    async def stat_async(self) -> Stat:
        """See `Source`."""
        self._check_open(None, None)
        probe = Probe(self._reactor, self._remote, self._options.timeout)
        return self._told(probe, (await self._awaited([probe]))[0])

    def _told(self, probe: Probe, version: Version) -> Stat:
        modified = http_date(version.modified or "")
        mtime_ns = None if modified is None else int(modified) * 10**9
        size = probe.size if version.size is None else version.size
        return Stat(
            self.path,
            size,
            pin=version.name,
            mtime_ns=mtime_ns,
            etag=version.etag,
            version=version.number,
        )

    def yield_if_due(self) -> Awaitable[object]:
        self._check_open(None, None)
        return checkpoint()

    def within(self, timeout: Timeout) -> "HttpSource":
        timed = copy(self)
        timed._options = replace(self._options, timeout=timeout)
        timed._steady = None
        timed.again = HttpSource.within, (self, timeout)
        return timed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._steady = None
            self._remote.kept = None
            self._pool.unuse()

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self._closed:
            raise from_native("closed", 0, self.path, offset, limit, "")

    # --- to the engine ---------------------------------------------------------------------------------------

    def _steady_now(self, chunk: int | None = None) -> "SteadyReads | None":
        """The steady state of the object; None if there is none, or if the pieces are too small."""
        if (chunk or self._most) < MEASURED:
            return None
        steady = self._steady
        if steady is None or not steady.good:
            steady = steady_reads(self._reactor, self._remote, self._options.timeout, self._most)
            self._steady = None if self._closed else steady
        return steady

    def _steady_for(self, lengths: Offsets, chunk: int | None) -> "SteadyReads | None":
        """The steady state; None also if a range is more than one request of this call, which the core does not cut."""
        cuts = chunk is not None and chunk < self._most and lengths.size and int(lengths.max()) > chunk
        return None if cuts else self._steady_now(chunk)

    def _one(self, read: RangeRead) -> Any:
        """Make one read in this thread."""
        found: Any = False
        if is_plain(read, self._most):
            steady = self._steady_now()
            count = read.stop - read.start
            if steady is None:
                found = guarded(read, read_waiting, read)
            elif read.into is None:
                found = steady.read_at(read.start, count)
            else:
                found = steady.read_into(read.into[:count], read.start)
        if found is True:
            return guarded(read, read.result)
        if isinstance(found, Unfinished):
            return self._finish(read, found)
        return found or self._now([read])[0]

    def _go_on(self, begun: Unfinished, into: memoryview | None = None) -> Any:
        return self._finish(self._unusual(begun.start, begun.stop, into), begun)

    def _unusual(self, start: int, stop: int, into: memoryview | None) -> RangeRead:
        """A read whose response was not plain; the steady state is dropped."""
        self._steady = None
        return self._made(start, stop, into=None if into is None else into[: stop - start])

    def _finish(self, read: RangeRead, begun: Unfinished) -> Any:
        """Let the engine continue one read."""
        return self._until_landed(lambda run: run.adopt(read, begun, begun.sent), 1)[0]

    def _rest(
        self,
        starts: Offsets,
        lengths: Offsets,
        buffers: "list[Buffer]",
        unfinished: list[tuple[int, Unfinished]],
        chunk: int | None,
        concurrent: int | None,
        began: float,
    ) -> list[Any]:
        """The rest of many reads after the steady state: some are complete, some in flight, some not started."""
        under_way = {index for index, _ in unfinished}
        landed = {index: buffer for index, buffer in enumerate(buffers) if index not in under_way}
        reads = self._reads(starts, lengths, len(buffers))
        begun = [(self._made(piece.start, piece.stop, index), piece) for index, piece in unfinished]
        unfinished.clear()
        buffers.clear()  # the traceback of a failure will hold this frame and its caller, but not the Buffers

        def begin(run: Engine) -> None:
            run.adopt_all(begun)
            run.add_all(reads)

        return self._until_landed(begin, len(starts), chunk, concurrent, landed, began)
