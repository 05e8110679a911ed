"""The interface between a Reader and a storage service: the protocols `Service` and `Source`, and their records.

A `Service` is one configured storage (root, credentials) and opens objects; a `Source` is one open object. A Reader
plans requests; a Source sends them and fills Buffers. Either the Reader or the native core checks offsets and lengths.
They may extend past the end, where results are short.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    Protocol,
    SupportsIndex,
    TypeAlias,
    runtime_checkable,
)

from _uring.pickling import unpicklable
from rangeio.errors import Error, UnsupportedError
from rangeio.options import Options
from rangeio.policy import Timeout
from rangeio.ranges import OPEN, Offsets
from rangeio.reading import Destination as Destination
from rangeio.reading import SourceReads

if TYPE_CHECKING:
    from _uring import Buffer
    from _uring.waiters import Waiter

FileResults: TypeAlias = "Sequence[Buffer | BaseException]"
Counts: TypeAlias = list[int | Error]


@dataclass(frozen=True, slots=True)
class Capability:
    """What one object supports, and how it is read.

    positioned: reads take an offset natively (files, memory) and cost no round trip. suffix: the last bytes can be
    requested without knowing the size. list: the service supports listing. pin: what distinguishes versions of the
    object, empty if nothing does. backend: what reads (``uring``, ``pool``, ``python``, ``memory``, ``http``). direct:
    O_DIRECT is in use; direct_reason: why or why not; alignment: the alignment in bytes it requires (0: not supported).
    mapped: many reads at once may be copied out of a mapping of the file.
    """

    positioned: bool
    suffix: bool
    list: bool
    pin: str
    backend: str
    direct: bool = False
    direct_reason: str = ""
    alignment: int = 0
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class Stat:
    """Metadata of an object.

    size: in bytes, None if only reading tells (/proc). pin: identifies this version, for comparison; empty if nothing
    does. mtime_ns: nanoseconds since 1970. etag, version: as the service reports them. is_prefix: this is not an object
    but the common prefix of several objects in a listing.
    """

    path: str
    size: int | None
    pin: str = ""
    mtime_ns: int | None = None
    etag: str | None = None
    version: str | None = None
    is_prefix: bool = False


Again: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments, as `__reduce__` returns them."""


class Travels(SourceReads):
    """A Source that pickles by recreating it (`again`). Its bound methods pickle the same way."""

    __slots__ = ()

    again: Again | None = None
    path: Any
    _check_open: Any

    def prefetch(self, starts: Offsets, lengths: Offsets) -> None:
        """See `Source`. Nothing here would keep the bytes."""
        self._check_open(None, None)

    def read_cached(self, offset: int, limit: int) -> "Buffer | None":
        """See `Source`. A read that does not wait goes another way."""
        return None

    def read_suffix(self, count: int) -> "Buffer | None":
        """See `Source`. The size is known, or cannot be."""
        return None

    async def read_suffix_async(self, count: int) -> "Buffer | None":
        """See `Source`."""
        return None

    def __copy__(self) -> Any:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce__(self) -> Again:
        if self.again is None:
            raise unpicklable(self.path)
        return self.again


class ReadAhead(NamedTuple):
    """Minimum number of bytes that a file object fetches: `first` after a seek, up to `most` for sequential reads."""

    first: int
    most: int


# First: what open() reads after a seek, on most file systems (bench: file). Most: what stays in the second-level cache.
NEAR = ReadAhead(4 << 10, 128 << 10)
# Over a network a request costs as much as the bytes of a default gap, and the connection should be kept busy.
FAR = ReadAhead(48 << 10, 8 << 20)


class Into(NamedTuple):
    """How many reads into memory are made. each: an Error of one is its result, in place of being raised."""

    chunk: int | None = None
    concurrent: int | None = None
    each: bool = False


class Source(Protocol):
    """One open object. Thread-safe. Reads in flight complete after `close`, and Buffers stay valid.

    Awaitables run on the event loop that awaits them; a Source is bound to no loop, so that one Source serves sync
    calls and any number of loops. Opening a Source does not wait for a network; the first read sends the first request.
    The await of `read_at_async`, `read_into_async` and `read_batch_async` raises their Errors, even if the call already
    knows them. If these methods do not wait, they yield to the loop now and then (`_uring.ready`).
    """

    again: Again | None
    """How another process recreates it; None if that is not possible. Set by the Reader, used by bound methods."""

    @property
    def path(self) -> str:
        """The path or URL for display, without credentials."""
        ...

    @property
    def capability(self) -> Capability:
        """What this object supports."""
        ...

    @property
    def read_ahead(self) -> "ReadAhead":
        """How far a file object reads ahead."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed, so that reads raise ClosedError."""
        ...

    @property
    def size(self) -> int | None:
        """Size in bytes, if known without I/O; None otherwise."""
        ...

    # The next six methods check their arguments themselves, because a Reader exposes them as its own methods.
    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        """Read one range. See `Reads` for this method and the next two."""
        ...

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        """Read into the caller's memory."""
        ...

    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        """Read records of one length."""
        ...

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """Read one range."""
        ...

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """Read into the caller's memory."""
        ...

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        """Read records of one length."""
        ...

    def read_suffix(self, count: int) -> "Buffer | None":
        """Read the last `count` bytes with one request, if that is possible and the size is not known; None if not."""
        ...

    def read_suffix_async(self, count: int) -> "Awaitable[Buffer | None]":
        """Like `read_suffix`, awaited."""
        ...

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        """Fill views of bytes, which do not overlap, and count the bytes of each. Raises as `fetch`."""

    def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Awaitable[Counts]:
        """Like `fetch_into`, awaited. When the await ends, nothing writes to the memory any more."""

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        """One Buffer per request, in order. Raises the first failure in that order, with its `index`.

        Merges nothing. Sends requests longer than `chunk` in pieces, which fill one Buffer.
        """
        ...

    def fetch_each(
        self,
        starts: Offsets,
        lengths: Offsets,
        *,
        chunk: int | None,
        concurrent: int | None,
        ordered: bool = False,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        """Like `fetch`, but yields (index, Buffer or Error) as each request completes.

        Raises other exceptions of a read, such as MemoryError. ordered: yield in order; then at most `concurrent`
        requests are in flight or complete but not yet yielded.
        """
        ...

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        """Like `fetch`, awaited. Begins all requests before it yields to the loop."""
        ...

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        """Begin one request. Sets the Buffer or Error as the result of `waiter`, possibly before this returns.

        Over a network it is sent in pieces of `chunk` bytes (None: the chunk of the Reader).

        Async iteration uses only this method (in_flight.py) and `read_cached`. A waiter that is `done` needs no result.
        """
        ...

    def read_cached(self, offset: int, limit: int) -> "Buffer | None":
        """The bytes of a range, if a task can have them at once and need not yield to the loop first; else None.

        It may raise an Error; then `begin_at` raises it, too, or sets it.
        """
        ...

    def prefetch(self, starts: Offsets, lengths: Offsets) -> None:
        """A hint that these ranges will be read soon; see `Reader.prefetch`. Returns at once."""
        ...

    def yield_if_due(self) -> Awaitable[object]:
        """Yield to other tasks of the loop, if reads that did not wait have blocked it for long.

        If the Source is closed, the call or the await raises ClosedError.
        """
        ...

    def near(self) -> int:
        """The current value of ``gap="auto"`` in bytes. No I/O."""
        ...

    def stat_async(self) -> Awaitable[Stat]:
        """Like `stat`, awaited."""
        ...

    def stat(self) -> Stat:
        """Ask the service again. ObjectChangedError if the object is pinned and has changed."""
        ...

    def within(self, timeout: Timeout) -> "Source":
        """The same object with other time limits for its reads; `self` if the service has no time limits.

        It owns nothing and need not be closed; closing this Source ends it.
        """
        ...

    def close(self) -> None:
        """Refuse new reads; a second call does nothing."""
        ...


class Location(NamedTuple):
    """What the URI of an object contains: options of its service, such as the bucket, and the path in the service."""

    options: dict[str, Any]
    path: str


class Service(Protocol):
    """One configured storage. Services derive from it: what they do not define is as for paths without secrets.

    `__init__` takes the reactor and, as keywords, the options in `option_names`.
    """

    scheme: str
    defaults: Options = Options()
    versions: bool = False
    """Whether it keeps several versions of an object and supports `version=`."""
    lists: bool = True
    """Whether it supports listings, and so has folders or prefixes."""
    option_names: Sequence[str] = ()
    """The names of its own options."""
    object_option_names: Sequence[str] = ()
    """The names of options that only its objects have; see `Options.own`."""

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """Take a URI apart. rest: all after ``://``. ConfigInvalidError for a URI that names nothing here."""
        return Location({}, rest)

    def open(self, path: str, options: Options) -> Source:
        """Open an object. NotFoundError, PermissionDeniedError and other errors."""
        ...

    def address(self, path: str) -> str:
        """The path with which another process opens the same object: without login, with a signature if it has one."""
        return path

    def absolute(self, path: str) -> str:
        """The path independent of the current directory of this process, which may change."""
        return path

    def shown(self, path: str) -> str:
        """The path or URI for display, without credentials."""
        return path

    def uri(self, path: str) -> str:
        """The URI of a path, without credentials; of a local file its path."""
        return self.shown(path)

    def name(self, path: str) -> str:
        """The path in the `Stat` of an object: without credentials."""
        return path

    @classmethod
    def is_place(cls, prefix: str) -> bool:
        """Whether a listing of `prefix` may be empty without an error: it names a folder or a bucket."""
        return not prefix

    @classmethod
    def file_name(cls, path: str) -> str:
        """The name of the file that a copy of an object gets; empty if its path contains none."""
        return os.path.basename(path)

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        """The objects whose path begins with `prefix`, sorted by path; see `Operator.list`. The call does no I/O."""
        raise UnsupportedError(f"{self.scheme!r} does not support listing", path=prefix)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        """Read one range of each of many objects: jobs of (path, start, stop). A failed job yields its exception."""
        return [self._read_one(job, options) for job in jobs]

    def _read_one(self, job: tuple[str, int, int | None], options: Options) -> "Buffer | BaseException":
        path, start, stop = job
        try:
            source = self.open(path, options)
            try:
                return source.read_at(start, (OPEN if stop is None else stop) - start)
            finally:
                source.close()
        except Error as error:
            return error

    def diagnosis(self) -> Iterable[tuple[str, str]]:
        """What it found on this machine, for display, as pairs of a topic and a text: the endpoint, and which
        credentials it uses and where they were found, but nothing of them. May wait for credentials; sends no request
        to the service. Raises the error of credentials that cannot be used.
        """
        return ()

    def keep_nothing(self) -> None:
        """Keep no connection any more beyond those of objects that are open. Called once: by `Operator.close`, and by
        `rangeio.open`, which opens one object only.
        """
        return

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options without secrets, for pickling and display."""
        return options

    def lacks(self, names: Sequence[str]) -> None:
        """Note that this was restored without these options, which `without_secrets` left out; errors tell."""
        return


@runtime_checkable
class ListsAwaited(Protocol):
    """A Service whose listing waits for a network."""

    def list_async(self, prefix: str, delimiter: str | None, options: Options) -> AsyncIterator[Stat]:
        """Like `list`, awaited."""
        ...


@runtime_checkable
class Presigns(Protocol):
    """A Service that can create URLs with temporary read access."""

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        """A URL that needs no credentials. See `Operator.presign`."""
        ...


def rolled_up(found: Iterable[Stat], prefix: str, delimiter: str | None) -> Iterator[Stat]:
    """A sorted listing in which paths with `delimiter` after `prefix` appear once, as the prefix including it."""
    before = None
    for stat in found:
        end = stat.path.find(delimiter, len(prefix)) if delimiter else -1
        if not delimiter or end < 0:
            yield stat
        elif (name := stat.path[: end + len(delimiter)]) != before:
            yield Stat(before := name, None, is_prefix=True)
