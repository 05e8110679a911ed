"""http:// and https://: the source of one object over the engine in `rangeio.http`, and the service that opens it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, cast
from urllib.parse import quote

from _uring.loops import bind, current_key
from _uring.surface import byte_array, byte_index, writable_bytes
from rangeio.errors import (
    ConfigInvalidError,
    Error,
    UnexpectedEofError,
    UnsupportedError,
    asked,
    from_native,
)
from rangeio.http import standing
from rangeio.http.address import parse_url
from rangeio.http.alone import at_once
from rangeio.http.drivers import Driver, LoopDriver, ThreadDriver, this_thread
from rangeio.http.pool import Pool, Security
from rangeio.http.reads import Probe, Read
from rangeio.http.remote import Access, Credentials, Fresh, Remote, checked_fields
from rangeio.http.rules import Version
from rangeio.http.run import Run
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets
from rangeio.service import FAR, Capability, Destination, FileResults, Options, ReadAhead, Stat
from rangeio.services.http_options import CONCURRENT, DEFAULTS, GAP, conditions, login_fields, options_to_keep
from rangeio.waiting import Ready, checkpoint

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer, Reactor
    from _uring.loops import Waiter


class HttpSource:
    """One object on a server. Nothing is asked before the first read."""

    def __init__(self, reactor: "Reactor", remote: Remote, options: Options) -> None:
        self._reactor = reactor
        self._remote = remote
        self._options = options
        self._pool = remote.access.pool
        self._closed = False
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
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        buffer: Buffer = self._one(self._read(start, count))
        return buffer

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        start, view = byte_index(offset, "offset"), writable_bytes(cast("SupportsBuffer", buffer))
        count: int = self._one(self._read(start, len(view), into=view))
        return count

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        start, count = byte_index(offset, "offset"), byte_index(limit, "limit")
        return self._soon(self._read(start, count))

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
        stop = start + count
        if stop > OPEN:
            stop = OPEN
        return Read(self._reactor, self._remote, index, start, stop, into, self._options.timeout)

    # --- many ------------------------------------------------------------------------------------------------

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        return self._now(self._reads(starts, lengths), chunk, concurrent)

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
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
        return self._each(self._reads(starts, lengths), chunk, concurrent or CONCURRENT, ordered)

    def _reads(self, starts: Offsets, lengths: Offsets) -> list[Read]:
        self._check_open(None, None)
        pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
        return [self._read(start, length, index) for index, (start, length) in enumerate(pairs)]

    def _each(
        self, reads: list[Read], chunk: int | None, concurrent: int, ordered: bool
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        """As they land: at most `concurrent` reads are under way or wait to be handed out."""
        landed: dict[int, Any] = {}
        driver = ThreadDriver()
        run = self._run(driver, landed.__setitem__, chunk, concurrent)
        try:
            begun = 0
            for given in range(len(reads)):
                while begun < min(len(reads), given + concurrent):
                    run.add(reads[begun])
                    reads[begun] = None  # type: ignore[call-overload]  # landed, it is the consumer's
                    begun += 1
                run.touch()
                while not (given in landed if ordered else landed):
                    driver.step()
                index = given if ordered else next(iter(landed))
                yield index, landed.pop(index)
        finally:
            run.cancel()
            driver.close()

    def near(self) -> int:
        measured = self._pool.pace(self._remote.target.origin).gap()
        return GAP if measured is None else measured

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Buffer":
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        self._check_open(None, None)
        size = self.stat().size if starts.size and count and self.size is None else self.size
        table, reads = self._records(starts, count, size)
        return self._filled(table, count, starts, self._now(reads))

    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        starts, count = byte_array(offsets, "offsets"), byte_index(length, "length")
        self._check_open(None, None)
        return self._batch(starts, count)

    async def _batch(self, starts: Offsets, count: int) -> "Buffer":
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
        mtime_ns = None
        if version.modified:
            try:
                mtime_ns = int(parsedate_to_datetime(version.modified).timestamp()) * 10**9
            except (TypeError, ValueError):
                pass  # a date nobody can read is none
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
        return timed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
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
    ) -> Run:
        return Run(
            driver,
            self._pool,
            landed,
            chunk=chunk or self._options.chunk or OPEN,
            concurrent=concurrent or self._options.concurrent or CONCURRENT,
            wanted=wanted,
        )

    def _one(self, read: Read) -> Any:
        """One read, waited for in this thread: the short way if a connection is idle and nothing is unusual."""
        found = at_once(read, self._pool, self._options.chunk or OPEN)
        if found is True:
            return read.result()
        if found is False:
            return self._now([read])[0]
        return self._until_landed(lambda run: run.take_over(read, *found), 1)[0]

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
    ) -> list[Any]:
        landed: dict[int, Any] = {}
        with this_thread() as driver:
            run = self._run(driver, landed.__setitem__, chunk, concurrent)
            try:
                begin(run)
                while len(landed) < count:
                    driver.step()
            finally:
                run.cancel()
        return _in_order(landed, count)

    def _awaited(
        self, reads: list[Any], chunk: int | None = None, concurrent: int | None = None
    ) -> Awaitable[list[Any]]:
        """The same, awaited."""
        return self._await(reads, chunk, concurrent) if reads else Ready([])

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
            for read in reads:
                run.add(read)
            await binding.wait(waiter)
        finally:
            run.cancel()
        return _in_order(landed, len(reads))


def _in_order(landed: dict[int, Any], count: int) -> list[Any]:
    results = [landed.pop(index) for index in range(count)]
    for result in results:
        if isinstance(result, BaseException):
            results.clear()  # the traceback will hold this frame, and this frame would hold the Buffers
            raise result
    return results


OWN_NAMES = [
    "root",
    "headers",
    "auth",
    "bearer_token",
    "credentials",
    "ca_file",
    "client_cert",
    "verify",
    "proxy",
]


def ranges_of_many(sources: Sequence[HttpSource], jobs: Sequence[tuple[str, int, int | None]]) -> FileResults:
    """One range of each: what `Service.read_files` gives. Closes the sources."""
    try:
        reads = [
            source._read(start, (OPEN if stop is None else stop) - start, index)
            for index, (source, (_, start, stop)) in enumerate(zip(sources, jobs, strict=True))
        ]
        found = dict(sources[0]._each([*reads], None, CONCURRENT, False)) if sources else {}
        return [found[index] for index in range(len(reads))]
    finally:
        for source in sources:
            source.close()


class HttpService:
    """Objects by URL, or below `root`, to which paths are appended as keys: quoted, whatever is in them.

    headers: sent with each request. auth: (user, password). bearer_token: text. credentials: a callable that returns
    header fields, or (fields, expiry in seconds since 1970); asked again before they expire and when they are refused.
    None of these is sent to another origin that a redirect leads to. ca_file, client_cert, verify: see `Security`.
    proxy: a URL, "" for none; by default what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say.
    """

    scheme = "http"
    defaults = DEFAULTS
    versions = False

    def __init__(
        self,
        reactor: "Reactor",
        root: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        bearer_token: str | None = None,
        credentials: Callable[[], Fresh] | None = None,
        ca_file: str | None = None,
        client_cert: str | tuple[str, ...] | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> None:
        self._reactor = reactor
        self._root = root
        if root is not None and "?" in parse_url(root).target:
            raise ConfigInvalidError("a root is a URL without a query; signed URLs are opened one by one")
        pool = Pool(Security(ca_file, client_cert, bool(verify)), proxy)
        self._access = Access(
            pool,
            checked_fields(headers or {}),
            Credentials(login_fields(auth, bearer_token, credentials), credentials),
        )
        pool.use()  # connections are kept as long as the service is

    def for_one(self) -> None:
        self._access.pool.unuse()

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        kept = options_to_keep(options, {"auth", "bearer_token"})
        if kept.get("root"):
            kept["root"] = parse_url(kept["root"]).url
        return kept

    def open(self, path: str, options: Options) -> HttpSource:
        remote = Remote(
            self._access,
            parse_url(self._url(path)),
            timeout=options.timeout,
            retry=options.retry,
            hedge_s=options.hedge,
            pin=options.pin,
            on_no_range=options.on_no_range,
            cap=options.no_range_cap,
            conditions=conditions(options),
            size=options.size,
        )
        return HttpSource(self._reactor, remote, options)

    def _url(self, path: str) -> str:
        return path if self._root is None else self._root.rstrip("/") + "/" + quote(path, safe="/~")

    def address(self, path: str) -> str:
        return path if self._root is not None else parse_url(path).url

    def may_travel(self, path: str) -> bool:
        return not parse_url(self._url(path)).is_signed

    def shown(self, path: str) -> str:
        return parse_url(self._url(path)).shown

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        raise UnsupportedError(
            "HTTP has no listing: open objects by their names, or list them by the store's own protocol (s3://)",
            path=prefix,
        )

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        return ranges_of_many([self.open(path, options) for path, _, _ in jobs], jobs)
