"""The source of one object over the engine in `rangeio.http`."""

import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from _uring import ready, turn
from _uring.loops import bind, current_key
from _uring.surface import byte_array, byte_index, writable_bytes
from rangeio.errors import Error, UnexpectedEofError, asked, from_native
from rangeio.http import standing
from rangeio.http.alone import Stray, at_once, finished, go_on
from rangeio.http.drivers import Driver, LoopDriver, ThreadDriver, this_thread
from rangeio.http.pace import MEASURED
from rangeio.http.pool import PER_HOST, Held
from rangeio.http.reads import Probe, Read, in_order
from rangeio.http.remote import Remote
from rangeio.http.repeats import repeat_for
from rangeio.http.rules import Version, http_date
from rangeio.http.run import Run
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets
from rangeio.service import FAR, Capability, Destination, Options, ReadAhead, Stat, Travels
from rangeio.services.http_options import CONCURRENT, GAP
from rangeio.waiting import by_await, checkpoint

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor
    from _uring.surface import Repeat, Strayed
    from _uring.waiters import Waiter


class HttpSource(Travels):
    """One object on a server. Nothing is asked before the first read."""

    def __init__(self, reactor: "Reactor", remote: Remote, options: Options) -> None:
        self._reactor = reactor
        self._remote = remote
        self._options = options
        self._pool = remote.access.pool
        self._closed = False
        self._repeat: Repeat | None = None
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
        return Capability(
            positioned=False, suffix=False, list=False, pin=self._remote.told_by, backend="http"
        )

    # --- one range -------------------------------------------------------------------------------------------

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        repeat = self._repeat  # another thread may take it away
        found: Any = None if repeat is None else repeat.read_at(offset, limit)
        if found is None:
            start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
            found = self._one(self._read(start, count))
        elif isinstance(found, tuple):
            found = self._strayed(found)
        return found  # type: ignore[no-any-return]  # a call more would be a tenth of all

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        repeat = self._repeat
        found: Any = None if repeat is None else repeat.read_into(view, start)
        if found is None:
            found = self._one(self._read(start, len(view), into=view))
        elif isinstance(found, tuple):
            found = self._strayed(found, view)
        return int(found)

    @by_await
    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        return self._soon(self._read(start, count))

    @by_await
    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        return self._soon(self._read(start, len(view), into=view))

    async def _soon(self, read: Read) -> Any:
        result = await standing.awaited(read, self._pool, self._options.chunk or OPEN, self._run)
        return (await self._awaited([read]))[0] if result is None else result

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        def landed(_: int, result: Any) -> None:
            if waiter.done():
                return
            if isinstance(result, BaseException):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)

        read = self._read(offset, limit)
        if not standing.begin(read, self._pool, chunk or self._options.chunk or OPEN, waiter, self._run):
            self._run(LoopDriver(current_key()), landed, chunk, wanted=lambda: not waiter.done()).add(read)

    def _read(self, start: int, count: int, index: int = 0, into: memoryview | None = None) -> Read:
        if self._closed:
            self._check_open(start, count)
        return self._made(start, start + count, index, into)

    def _made(self, start: int, stop: int, index: int = 0, into: memoryview | None = None) -> Read:
        if stop > OPEN:
            stop = OPEN
        return Read(self._reactor, self._remote, index, start, stop, into, self._options.timeout)

    def _begun(self, strayed: "Strayed", index: int = 0, into: memoryview | None = None) -> Read:
        """The read that a repeat has begun."""
        _, _, _, start, stop, *_ = strayed
        return self._made(start, stop, index, into)

    # --- many ------------------------------------------------------------------------------------------------

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        began, width = time.monotonic(), self._width(concurrent or self._options.concurrent)
        buffers: list[Buffer] = []
        strayed: list[tuple[int, Strayed]] | None = []
        while not strayed and len(buffers) < len(starts):
            repeat = self._repeated(chunk)
            strayed = None if repeat is None else repeat.read_many(starts, lengths, buffers, width, began)
            if strayed is None:
                break
        if len(buffers) == len(starts) and not strayed:
            return buffers
        return self._rest(starts, lengths, buffers, strayed or [], chunk, concurrent, began)

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
        held, width = Held(), concurrent or CONCURRENT
        if ordered:
            found = self._each(held, self._reads(starts, lengths), chunk, width, ordered, [])
        else:
            found = self._each_small(held, starts, lengths, chunk, width)
        self._pool.iterates(found, held)
        return found

    def _reads(self, starts: Offsets, lengths: Offsets, first: int = 0) -> list[Read]:
        """From the range with this index on, whether or not this was closed meanwhile."""
        pairs = zip(starts[first:].tolist(), lengths[first:].tolist(), strict=True)
        return [
            self._made(start, start + length, index) for index, (start, length) in enumerate(pairs, first)
        ]

    def _each_small(
        self, held: Held, starts: Offsets, lengths: Offsets, chunk: int | None, concurrent: int
    ) -> "Generator[tuple[int, Buffer | Error]]":
        """By the core alone, until one strays; the rest as others."""
        began, begun = time.monotonic(), 0
        strayed: list[tuple[int, Strayed]] = []
        while not strayed and begun < len(starts):
            repeat = self._repeated(chunk)
            if repeat is None:
                break
            convoy = repeat.iter_many(starts, lengths, begun, self._width(concurrent), began)
            if convoy is None:
                break
            try:
                held.count = partial(self._width, concurrent)
                yield from iter(convoy.next, None)
                strayed, begun = convoy.strayed(), convoy.begun
            finally:
                convoy.close()
        if begun == len(starts) and not strayed:
            return
        under_way = [(self._begun(piece, index), piece) for index, piece in strayed]
        reads = self._reads(starts, lengths, begun)
        yield from self._each(held, reads, chunk, concurrent, False, under_way, began)

    def _width(self, concurrent: int | None) -> int:
        """Over how many connections at once the core reads."""
        return min(concurrent or CONCURRENT, PER_HOST)

    def _each(
        self,
        held: Held,
        reads: list[Read],
        chunk: int | None,
        concurrent: int,
        ordered: bool,
        strayed: "list[tuple[Read, Strayed]]",
        began: float | None = None,
    ) -> "Generator[tuple[int, Buffer | Error]]":
        """As they land: at most `concurrent` reads are under way or wait to be handed out. strayed: others that are
        under way, which then come as well; began: when they did.
        """
        landed: dict[int, Any] = {}
        with self._named():
            driver = ThreadDriver()
        run = self._run(driver, landed.__setitem__, chunk, concurrent, began=began)
        held.count = run.held
        try:
            begun, before = 0, len(strayed)
            run.join_all(strayed)
            for given in range(-before, len(reads)):
                while begun < min(len(reads), given + concurrent):
                    run.add(reads[begun])
                    reads[begun] = None  # type: ignore[call-overload]  # landed, it is the consumer's
                    begun += 1
                run.touch()
                while not (given in landed if ordered else landed):
                    driver.step()
                index = given if ordered else next(iter(landed))
                if isinstance(landed[index], BaseException) and not isinstance(landed[index], Error):
                    raise landed.pop(index)  # no memory: for who reads, not a reply of one range
                run.rest()
                yield index, landed.pop(index)
        finally:
            run.cancel()
            driver.close()
            landed.clear()  # the traceback of an error may hold this frame

    def near(self) -> int:
        measured = self._pool.pace(self._remote.target.origin).gap()
        return GAP if measured is None else measured

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Buffer":
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        self._check_open(None, None)
        size = self.stat().size if starts.size and count and self.size is None else self.size
        table, reads = self._records(starts, count, size)
        return self._filled(table, count, starts, self._now(reads))

    @by_await
    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        self._check_open(None, None)
        return self._batch(starts, count)

    async def _batch(self, starts: Offsets, count: int) -> "Buffer":
        await turn()
        ask = starts.size and count and self.size is None
        size = (await self.stat_async()).size if ask else self.size
        table, reads = self._records(starts, count, size)
        return self._filled(table, count, starts, await self._awaited(reads))

    def _records(self, starts: Offsets, count: int, size: int | None) -> "tuple[Buffer, list[Read]]":
        """A table, and the reads that fill its rows. UnexpectedEofError before memory is taken."""
        if count and size is not None and (starts > size - count).any():
            self._passes(int((starts > size - count).argmax()), starts, count, size)
        table = self._reactor.allocate((starts.size, count))
        if not table.nbytes:
            return table, []
        memory = self._reactor.writable(table).cast("B")
        rows = enumerate(starts.tolist())
        return table, [self._read(at, count, i, memory[i * count : (i + 1) * count]) for i, at in rows]

    def _filled(self, table: "Buffer", count: int, starts: Offsets, counts: list[int]) -> "Buffer":
        for index, got in enumerate(counts):
            if got < count:
                self._passes(index, starts, count, None)
        return table

    def _passes(self, index: int, starts: Offsets, count: int, size: int | None) -> None:
        start = int(starts[index])
        of = "" if size is None else f" of {size} bytes"
        raise UnexpectedEofError(
            f"{asked(self.path, start, count)}: record {index} passes the end of an object{of}",
            path=self.path,
            offset=start,
            limit=count,
            index=index,
        )

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

    def turn(self) -> Awaitable[object]:
        self._check_open(None, None)
        return checkpoint()

    def within(self, timeout: Timeout) -> "HttpSource":
        timed = copy(self)
        timed._options = replace(self._options, timeout=timeout)
        timed._repeat = None
        timed.again = HttpSource.within, (self, timeout)
        return timed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._repeat = None
            self._remote.kept = None
            self._pool.unuse()

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self._closed:
            raise from_native("closed", 0, self.path, offset, limit, "")

    # --- to the engine ---------------------------------------------------------------------------------------

    def _run(
        self,
        driver: Driver,
        landed: Callable[[int, Any], None],
        chunk: int | None = None,
        concurrent: int | None = None,
        wanted: Callable[[], bool] | None = None,
        began: float | None = None,
    ) -> Run:
        return Run(
            driver,
            self._pool,
            landed,
            chunk=chunk or self._options.chunk or OPEN,
            concurrent=concurrent or self._options.concurrent or CONCURRENT,
            wanted=wanted,
            began=began,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What fails before there is a request, for want of a descriptor to wait with, says what was to be read."""
        try:
            yield
        except Error as error:
            if error.path:
                raise
            text = f"{asked(self.path, None, None)}: {error}"
            raise type(error)(text, path=self.path, errno=error.errno, status=error.status) from error

    def _one(self, read: Read) -> Any:
        """One read, waited for in this thread: the short way if a connection is idle and nothing is unusual."""
        found = at_once(read, self._pool, self._options.chunk or OPEN)
        if found is True and read.stop - read.start < MEASURED:
            repeat = self._repeat
            self._repeat = repeat if repeat is not None and repeat.good else self._repeated()
            if self._closed:
                self._repeat = None
        return self._ended(read, found)

    def _ended(self, read: Read, found: Stray | bool) -> Any:
        if found is True:
            return finished(read)
        if found is False:
            return self._now([read])[0]
        return self._until_landed(lambda run: run.take_over(read, *found), 1)[0]

    def _repeated(self, chunk: int | None = None) -> "Repeat | None":
        """Small reads as the last one was. None where there is no such thing, or larger pieces have to be cut."""
        if (chunk or self._options.chunk or OPEN) < MEASURED:
            return None
        return repeat_for(self._reactor, self._remote, self._options.timeout)

    def _strayed(self, strayed: "Strayed", into: memoryview | None = None) -> Any:
        """One read, the same, that was not as the last one."""
        self._repeat = None
        read = self._begun(strayed, 0, into)
        return self._ended(read, go_on(read, self._pool, strayed))

    def _rest(
        self,
        starts: Offsets,
        lengths: Offsets,
        buffers: "list[Buffer]",
        strayed: "list[tuple[int, Strayed]]",
        chunk: int | None,
        concurrent: int | None,
        began: float,
    ) -> list[Any]:
        """What a repeat did not read of many: some are there, some under way, some not begun."""
        under_way = {index for index, _ in strayed}
        landed = {index: buffer for index, buffer in enumerate(buffers) if index not in under_way}
        reads = self._reads(starts, lengths, len(buffers))
        pieces = [(self._begun(piece, index), piece) for index, piece in strayed]
        strayed.clear()
        buffers.clear()  # the traceback of a failure will hold this frame and its caller's, but not the Buffers

        def begin(run: Run) -> None:
            run.join_all(pieces)
            for read in reads:
                run.add(read)

        return self._until_landed(begin, len(starts), chunk, concurrent, landed, began)

    def _now(self, reads: list[Any], chunk: int | None = None, concurrent: int | None = None) -> list[Any]:
        """The results, waited for in this thread; the first failure in the order of `reads` is raised."""

        def begin(run: Run) -> None:
            for read in reads:
                run.add(read)

        return self._until_landed(begin, len(reads), chunk, concurrent)

    def _until_landed(
        self,
        begin: Callable[[Run], None],
        count: int,
        chunk: int | None = None,
        concurrent: int | None = None,
        landed: dict[int, Any] | None = None,
        began: float | None = None,
    ) -> list[Any]:
        """landed: what is there already, by index. began: when the call did."""
        landed = {} if landed is None else landed
        with self._named(), this_thread() as driver:
            run = self._run(driver, landed.__setitem__, chunk, concurrent, began=began)
            try:
                begin(run)
                while len(landed) < count:
                    driver.step()
            finally:
                run.cancel()
        return in_order(landed, count)

    def _awaited(
        self, reads: list[Any], chunk: int | None = None, concurrent: int | None = None
    ) -> Awaitable[list[Any]]:
        """The same, awaited."""
        return self._await(reads, chunk, concurrent) if reads else ready([])

    async def _await(self, reads: list[Any], chunk: int | None, concurrent: int | None) -> list[Any]:
        key = current_key()
        binding: Any = bind(key)
        landed: dict[int, Any] = {}
        waiter = binding.waiter(None)

        def take(index: int, result: Any) -> None:
            landed[index] = result
            if len(landed) == len(reads) and not waiter.done():
                waiter.set_result(None)

        run = self._run(LoopDriver(key), take, chunk, concurrent)
        try:
            with self._named():
                for read in reads:
                    run.add(read)
            if waiter.done():  # out of an object that is kept: nothing was waited for
                await turn()
            await binding.wait(waiter)
        finally:
            run.cancel()
        return in_order(landed, len(reads))
