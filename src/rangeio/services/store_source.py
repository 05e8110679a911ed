"""One object of another library as a Source: `Store.pread` and `Store.info`, and what rangeio makes of them."""

import os
from collections.abc import Awaitable, Callable, Generator, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

from _uring import ready, yield_if_due
from _uring.arguments import byte_index, writable_bytes
from _uring.errors import without_frames
from _uring.event_loops import AsyncioBinding, bind, current_key
from rangeio.awaitables import by_await, checkpoint
from rangeio.errors import Error, TimedOutError, UnsupportedError, asked, from_native
from rangeio.options import Options
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets
from rangeio.service import FAR, Capability, Counts, Destination, Into, ReadAhead, Stat
from rangeio.services.store_calls import CallerHost, Gate, Host, Job, LoopHost, Run, Steps
from rangeio.services.store_object import StoreObject, in_thread
from rangeio.services.store_read import StoreRead
from rangeio.services.tables import TableReads
from rangeio.stores.store import Info, Store

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor
    from _uring.waiters import Waiter

CONCURRENT = 16
GAP = FAR.first
DEFAULTS = Options(gap=GAP, max_merged=8 << 20, chunk=8 << 20, concurrent=CONCURRENT, prefetch=64 << 20)
"""Most of these stores are far away, so the defaults are those of services over HTTP."""


class StoreSource(TableReads):
    """One object of a store. The first read makes the first call."""

    def __init__(self, reactor: "Reactor", store: Store, options: Options) -> None:
        self._reactor = reactor
        self._store = store
        self._options = options
        self._limit = 1 if store.alone else options.concurrent or CONCURRENT
        self._gate = Gate()
        self._closed = False
        self._outer: StoreSource | None = None
        self._pid = os.getpid()
        self._object = StoreObject(store, pinned=options.pin, size=options.size)

    def open_now(self) -> None:
        """Ask what the object is, so that an object that does not exist fails here."""
        self._object.learn_now()

    @property
    def path(self) -> str:
        return self._store.path

    @property
    def read_ahead(self) -> ReadAhead:
        return FAR

    @property
    def closed(self) -> bool:
        return self._closed or (self._outer is not None and self._outer.closed)

    @property
    def size(self) -> int | None:
        known = self._object.known.info
        return self._options.size if known is None else known.size

    @property
    def capability(self) -> Capability:
        known = self._object.known.info
        pin = "" if known is None else "+".join(filter(None, [known.pinned_by, "size"]))
        return Capability(positioned=False, suffix=False, list=False, pin=pin, backend=self._store.backend)

    def near(self) -> int:
        return GAP

    # --- one range -------------------------------------------------------------------------------------------

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        self._check_open(start, count)
        return self._one(self._read(start, count))  # type: ignore[no-any-return]

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        self._check_open(start, len(view))
        return int(self._one(self._read(start, len(view), into=view)))

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        return self._soon(byte_index(offset, "offset"), byte_index(limit, "limit"), None)

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        return self._soon(start, len(view), view)

    @by_await
    def _soon(self, start: int, count: int, into: memoryview | None) -> Awaitable[Any]:
        self._check_open(start, count)
        return self._one_awaited(self._read(start, count, into=into))

    def _is_plain(self, read: StoreRead) -> bool:
        """Whether it is one piece without a time limit: one job, which needs no `Run`."""
        return read.limit <= (self._options.chunk or OPEN) and self._limits() == (None, None)

    def _one(self, read: StoreRead) -> Any:
        """Make one read in this thread."""
        if not self._is_plain(read):
            return self._now([read])[0]
        try:
            return _of(read, self._object.made(partial(self._object.reading, read), read))
        finally:
            read.let_go()

    async def _one_awaited(self, read: StoreRead) -> Any:
        await yield_if_due()
        if not self._is_plain(read):
            return (await self._awaited([read]))[0]
        steps = partial(self._object.reading, read)
        job = await self._gate.turn(self._limit, bind(current_key()))
        try:
            if self._awaits():
                try:
                    found = await self._object.made_awaited(steps, read)
                finally:
                    job.leave()
            else:
                (found,) = await in_thread(partial(self._made_in_thread, steps, read, job))
            return _of(read, found)
        finally:
            read.let_go()

    def _made_in_thread(self, steps: Steps, read: StoreRead, job: Job) -> tuple[Any]:
        """Also if nobody waits any more: the job is in progress until the store has answered."""
        try:
            return (self._object.made(steps, read),)
        finally:
            job.leave()

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        self._check_open(offset, limit)
        read = self._read(offset, limit)
        host = self._loop_host()

        def landed() -> None:
            result: Any = None
            try:
                result = run.results()[0]
            except BaseException as error:
                result = error
            run.stop()
            host.tell_failures(None)
            if waiter.done():
                return
            if isinstance(result, BaseException):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)

        run = self._run(host, [read], landed, chunk, wanted=lambda: not waiter.done())
        host.tell_failures(run.fail)
        run.begin()

    def _read(self, start: int, count: int, index: int = 0, into: memoryview | None = None) -> StoreRead:
        return StoreRead(self._reactor, index, start, start + count, into)

    # --- many ------------------------------------------------------------------------------------------------

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        self._check_open(None, None)
        return self._now(self._reads(starts, lengths), chunk, concurrent)

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        self._check_open(None, None)
        reads = self._reads(starts, lengths)
        return self._awaited(reads, chunk, concurrent) if reads else ready([])

    def _reads(self, starts: Offsets, lengths: Offsets) -> list[StoreRead]:
        pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
        return [self._read(start, length, index) for index, (start, length) in enumerate(pairs)]

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
        width = concurrent or self._limit
        return self._each(self._reads(starts, lengths), chunk, width, ordered)

    def _each(
        self, reads: list[StoreRead], chunk: int | None, width: int, ordered: bool
    ) -> "Generator[tuple[int, Buffer | Error]]":
        """One run for each read; at most `width` are in progress or wait to be yielded."""
        landed: dict[int, Any] = {}
        runs: dict[int, Run] = {}
        host = self._caller_host(inline=self._inline(reads, chunk, width))

        def end(index: int) -> None:
            run = runs.pop(index)
            try:
                landed[index] = run.results()[0]
            except BaseException as error:
                landed[index] = error
            run.stop()

        def begin(index: int) -> None:
            run = self._run(host, [reads[index]], partial(end, index), chunk)
            runs[index] = run
            run.begin()

        try:
            begun = 0
            for given in range(len(reads)):
                # What the object is, is asked by the first read alone.
                most = given + (width if self._object.known.info is not None else 1)
                while begun < min(len(reads), most):
                    begin(begun)
                    begun += 1
                while not (given in landed if ordered else landed):
                    _step(host, runs.values())
                index = given if ordered else next(iter(landed))
                if isinstance(landed[index], BaseException) and not isinstance(landed[index], Error):
                    raise landed.pop(index)  # out of memory: raised, not returned for one range
                yield index, landed.pop(index)
        finally:
            for run in runs.values():
                run.stop()
            runs.clear()
            landed.clear()  # the traceback of an error may hold this frame

    def _fill(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        reads = self.reads_into(views, starts)
        if not how.each:
            return self._now(reads, how.chunk, how.concurrent)
        found: dict[int, Any] = dict(self._each(reads, how.chunk, how.concurrent or self._limit, False))
        return [_at(index, found[index]) for index in range(len(reads))]

    async def _fill_awaited(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        try:
            return await self._awaited(self.reads_into(views, starts), how.chunk, how.concurrent)
        except Error as error:
            if not how.each:
                raise
            if isinstance(error, TimedOutError):  # the time of the call is over for all of them
                return [_at(index, copy(error)) for index in range(len(views))]
        found: Counts = []  # each again, for its own result
        for read in self.reads_into(views, starts):
            try:
                found += await self._awaited([read], how.chunk)
            except Error as error:
                found.append(_at(read.index, error))
        return found

    # --- what it is ------------------------------------------------------------------------------------------

    def stat(self) -> Stat:
        self._check_open(None, None)
        return self._told(self._waited(self._run_of_stat, inline=self._limits() == (None, None)).checked)

    async def stat_async(self) -> Stat:
        """See `Source`."""
        self._check_open(None, None)
        return self._told((await self._until_landed(self._run_of_stat)).checked)

    def _run_of_stat(self, host: Host, landed: Callable[[], None]) -> Run:
        return self._run(host, [], landed, check=lambda: self._object.checking)

    def _told(self, info: Info) -> Stat:
        parts = [*map(str, info.pin), "" if info.size is None else str(info.size)]
        return Stat(
            self.path,
            info.size,
            pin=":".join(filter(None, parts)) if info.pin else "",
            mtime_ns=info.mtime_ns,
            etag=info.etag,
            version=info.version,
        )

    def yield_if_due(self) -> Awaitable[object]:
        self._check_open(None, None)
        return checkpoint()

    def within(self, timeout: Timeout) -> "StoreSource":
        timed = copy(self)
        timed._options = replace(self._options, timeout=timeout)
        timed._outer = self
        timed.again = StoreSource.within, (self, timeout)
        return timed

    def close(self) -> None:
        self._closed = True

    def _check_open(self, offset: int | None, limit: int | None) -> None:
        if self.closed:
            raise from_native("closed", 0, self.path, offset, limit, "")
        if self._store.forked and self._pid != os.getpid():
            place = asked(self.path, offset, limit)
            raise UnsupportedError(
                f"{place}: {self._store.forked}", path=self.path, offset=offset, limit=limit
            )

    # --- waiting ---------------------------------------------------------------------------------------------

    def _limits(self) -> tuple[float | None, float | None]:
        return self._options.timeout.total_s, self._store.call_s

    def _run(
        self,
        host: Host,
        reads: list[StoreRead],
        landed: Callable[[], None],
        chunk: int | None = None,
        concurrent: int | None = None,
        wanted: Callable[[], bool] = lambda: True,
        check: Callable[[], Steps | None] | None = None,
    ) -> Run:
        return Run(
            host,
            self._object.parts(reads, chunk or self._options.chunk or OPEN, wanted),
            reads,
            check or partial(self._object.due, reads),
            landed,
            width=min(concurrent or self._limit, self._limit),
            wanted=wanted,
            limits=(self.path, *self._limits()),
        )

    def _inline(self, reads: list[StoreRead], chunk: int | None, width: int) -> bool:
        """Whether the caller's thread makes the calls: there is no time limit, and nothing to do at the same time."""
        most = chunk or self._options.chunk or OPEN
        alone = min(width, self._limit) == 1 or (
            len(reads) <= 1 and all(read.limit <= most for read in reads)
        )
        return alone and self._limits() == (None, None)

    def _caller_host(self, *, inline: bool) -> CallerHost:
        return CallerHost(self._object, self._gate, self._limit, inline=inline)

    def _now(
        self, reads: list[StoreRead], chunk: int | None = None, concurrent: int | None = None
    ) -> list[Any]:
        """The results, waited for in this thread."""
        run = partial(self._run, reads=reads, chunk=chunk, concurrent=concurrent)
        inline = self._inline(reads, chunk, concurrent or self._limit)
        return self._waited(lambda host, landed: run(host=host, landed=landed), inline=inline).found

    def _waited(self, make: Callable[[Host, Callable[[], None]], Run], *, inline: bool) -> Run:
        host = self._caller_host(inline=inline)
        run = make(host, _nothing)
        try:
            run.begin()
            while not run.over:
                _step(host, [run])
            run.found = run.results()
            return run
        finally:
            run.stop()

    async def _awaited(
        self, reads: list[StoreRead], chunk: int | None = None, concurrent: int | None = None
    ) -> list[Any]:
        run = partial(self._run, reads=reads, chunk=chunk, concurrent=concurrent)
        return (await self._until_landed(lambda host, landed: run(host=host, landed=landed))).found

    async def _until_landed(self, make: Callable[[Host, Callable[[], None]], Run]) -> Run:
        host = self._loop_host()
        binding: Any = host.binding
        waiter = binding.waiter(None)
        run = make(host, lambda: waiter.done() or waiter.set_result(None))
        host.tell_failures(run.fail)
        try:
            run.begin()
            if run.over:
                await yield_if_due()
            await binding.wait(waiter)
            run.found = run.results()
            return run
        finally:
            run.stop()
            host.tell_failures(None)

    def _loop_host(self) -> LoopHost:
        return LoopHost(self._object, self._gate, self._limit, bind(current_key()), awaits=self._awaits())

    def _awaits(self) -> bool:
        """Whether the store can be awaited on the running loop."""
        return self._store.can_await() and isinstance(bind(current_key()), AsyncioBinding)


def _of(read: StoreRead, found: Any) -> Any:
    """The result of a read that was made; raises the exception that was returned."""
    if isinstance(found, BaseException):
        found.__traceback__ = None  # the frames of a job
        try:
            raise found
        finally:
            del found  # its traceback refers to this frame
    return read.result()


def _at(index: int, result: Any) -> Any:
    """A result of many; an Error names its range, and keeps no memory."""
    if isinstance(result, Error):
        result.index = index
        without_frames(result)
    return result


def _nothing() -> None:
    pass


def _step(host: CallerHost, runs: Any) -> None:
    """Wait for the next event of some runs, and end those whose time has passed."""
    limits = [left for run in runs if (left := run.left_s()) is not None]
    host.step(min(limits, default=None))
    if limits:
        for run in list(runs):
            run.look()
