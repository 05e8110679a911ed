"""What a Reader needs of a storage service: the two protocols, and the records that pass between.

A `Service` knows one storage (its root, its credentials) and opens objects; a `Source` is one opened object. A Reader
plans, a Source sends what was planned and fills Buffers. Offsets and lengths given to a Source were checked by the
Reader or are checked by the native core; they may reach beyond the end, where results are short.
"""

import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    SupportsIndex,
    TypeAlias,
    runtime_checkable,
)

from _uring.pickling import unpicklable
from rangeio.errors import ConfigInvalidError, Error, closest
from rangeio.policy import Retry, Timeout, hedge_of
from rangeio.ranges import Offsets
from rangeio.reading import Destination as Destination
from rangeio.reading import SourceReads

if TYPE_CHECKING:
    from _uring import Buffer
    from _uring.waiters import Waiter

FileResults: TypeAlias = "Sequence[Buffer | BaseException]"


@dataclass(frozen=True, slots=True)
class Capability:
    """What can be had of one object, and how it is read.

    positioned: reads have an offset natively (files, memory), and cost no round trip. suffix: the last bytes can be
    asked for without knowing the size. list: the service can list. pin: what tells one version from another, empty if
    nothing does. backend: what reads (``uring``, ``pool``, ``python``, ``memory``, ``http``). direct: O_DIRECT is in
    use, with the reason why or why not, and the alignment in bytes that it wants (0: not supported).
    """

    positioned: bool
    suffix: bool
    list: bool
    pin: str
    backend: str
    direct: bool = False
    direct_reason: str = ""
    alignment: int = 0


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of an object.

    size: bytes, None where nobody knows before reading (/proc). pin: identifies this version, for comparing; empty if
    nothing does. mtime_ns: since 1970. etag, version: as the service gives them. is_prefix: it is no object, but stands
    in a listing for all whose paths begin so.
    """

    path: str
    size: int | None
    pin: str = ""
    mtime_ns: int | None = None
    etag: str | None = None
    version: str | None = None
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How one object is opened and read. Each has a default that the service chooses.

    gap: most bytes between two ranges that are still fetched as one; 0 joins what touches or overlaps, None nothing.
        ``"auto"``, over a network: what comes in the time that another request would wait for its first byte, from
        8 to 256 KiB, as measured with the server's latest responses of 128 KiB and more; the default (48 KiB) until
        there were four. One call has one gap, and `plan` tells it. Files and memory, where a request is no journey: 0.
    max_merged: most bytes that joining may make of ranges that do not overlap; None for no bound.
    chunk: most bytes of one request, None for no bound. A local file that is awaited is read in the core's own pieces
        (1 MiB, or 4 by O_DIRECT, eight under way): smaller ones only cost, and larger ones would not be in parallel.
    concurrent: most requests in flight, None for the reactor's choice.
    prefetch: most bytes that a stream reads ahead of its consumer, None for the default.
    size: bytes of the object if known beforehand, a hint that saves asking; files need none.
    pin: refuse what is not the version that was opened.
    direct: O_DIRECT for files, where the file system has it (`capability.direct_reason` tells). What is asked for need
        not be aligned; memory of the caller's (`read_into`) that is not, is filled by way of the page cache.

    Of services over a network, and without a meaning for others: timeout, retry: see `Timeout` and `Retry`.
    hedge: seconds after which a request without a first byte is made once more over another connection; the first
    response that comes is taken, the other connection closed. None for never. What it costs comes out of the budget of
    retries, and is counted in `rangeio.stats()`.
    on_no_range: what to do where the server sends the whole object instead of a range: ``"error"``; ``"slice"`` it,
    throwing away what comes before; or ``"download"`` it once and keep it. no_range_cap: most bytes that may be thrown
    away or kept so. if_match, if_none_match: ETags; if_modified_since, if_unmodified_since: dates as HTTP writes them,
    which the first response must satisfy. version: of an object of which the service keeps several (s3), None for the
    newest.
    """

    gap: int | Literal["auto"] | None = 0
    max_merged: int | None = 1 << 20
    chunk: int | None = None
    concurrent: int | None = None
    prefetch: int | None = None
    size: int | None = None
    pin: bool = True
    direct: bool | Literal["auto"] = "auto"
    timeout: Timeout = field(default_factory=Timeout)
    retry: Retry = field(default_factory=Retry)
    hedge: float | None = None
    on_no_range: Literal["error", "slice", "download"] = "error"
    no_range_cap: int = 64 << 20
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    version: str | None = None

    def updated(self, changes: dict[str, Any]) -> "Options":
        """With `changes` made. ConfigInvalidError for a wrong name or value."""
        check_names(changes, OPTION_NAMES, "option")
        return replace(self, **{name: _checked(name, value) for name, value in changes.items()})


OPTION_NAMES = [option.name for option in fields(Options)]


def check_names(given: dict[str, Any], known: list[str], what: str) -> None:
    """ConfigInvalidError for the first name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            raise ConfigInvalidError(f"unknown {what} {name!r}; {closest(name, known)}")


_MADE_BY: dict[str, Callable[[Any], Any]] = {"timeout": Timeout.of, "retry": Retry.of, "hedge": hedge_of}


def _checked(name: str, value: Any) -> Any:
    if name == "pin":
        return bool(value)
    if name == "direct":
        if value in (True, False, "auto"):
            return value
        raise ConfigInvalidError(f"direct must be True, False or 'auto', not {value!r}")
    if name in _MADE_BY:
        return _MADE_BY[name](value)
    if name == "on_no_range":
        if value in ("error", "slice", "download"):
            return value
        raise ConfigInvalidError(f"on_no_range must be 'error', 'slice' or 'download', not {value!r}")
    if name.startswith("if_") or name == "version":
        if value is None or (isinstance(value, str) and value.isascii() and value.isprintable()):
            return value
        raise ConfigInvalidError(f"{name} must be a string that a header field can hold, not {value!r}")
    if name == "gap" and isinstance(value, str):
        if value == "auto":
            return value
        raise ConfigInvalidError(f"gap must be a whole number of bytes, 'auto' or None, not {value!r}")
    if value is None and name != "no_range_cap":
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigInvalidError(f"{name} must be a whole number of bytes or None, not {value!r}") from None
    least = 0 if name in ("gap", "size", "prefetch") else 1
    if not least <= number < 2**63:
        raise ConfigInvalidError(f"{name} must be at least {least} and below 2**63, got {number}")
    return number


Again: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments, as `__reduce__` gives them."""


class Travels(SourceReads):
    """What pickles as something that is made anew where it is unpickled (`again`), and so do its bound methods."""

    __slots__ = ()

    again: Again | None = None
    path: Any

    def __copy__(self) -> Any:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce__(self) -> Again:
        if self.again is None:
            raise unpicklable(self.path)
        return self.again


class ReadAhead(NamedTuple):
    """Bytes that a file object fetches at least: after a seek, and at most, when read on and on."""

    first: int
    most: int


# As much as the buffer of open() does; at most what stays in the second-level cache (bench: file).
NEAR = ReadAhead(8 << 10, 128 << 10)
# Over a network a request costs as much as the bytes of a default gap, and one connection has to be kept busy.
FAR = ReadAhead(48 << 10, 8 << 20)


class Source(Protocol):
    """One opened object. Any thread may call anything; reads in flight survive `close`, and so do Buffers.

    What is awaited is driven by the loop that runs then, and bound to none before: the same Source serves sync calls
    and any number of loops. Opening a Source does not wait for a network; what has to be asked is asked by the first
    read. An Error of `read_at_async`, `read_into_async` and `read_batch_async` comes by the await, also where it is
    known before; and where they do not wait, they give the loop a turn now and then (`_uring.ready`).
    """

    again: Again | None
    """How another process makes it; None if that cannot be. Said by the Reader, and left to its other methods."""

    @property
    def path(self) -> str:
        """For people: what was opened, without credentials."""
        ...

    @property
    def capability(self) -> Capability:
        """What can be had of this object."""
        ...

    @property
    def read_ahead(self) -> "ReadAhead":
        """How much a file object fetches that was not asked for yet."""
        ...

    @property
    def closed(self) -> bool:
        """Whether reads are refused."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes, if known without I/O; None otherwise."""
        ...

    # The next six check their arguments themselves, because a Reader hands them out as its own methods.
    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        """Read one range. See `Reads` for this one and the next two."""
        ...

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        """Read into the caller's memory."""
        ...

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Buffer":
        """Read records of one length."""
        ...

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """Read one range."""
        ...

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """Read into the caller's memory."""
        ...

    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        """Read records of one length."""
        ...

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        """One Buffer for each request, in order; the first failure in that order is raised, with its `index`.

        Nothing is merged. Requests longer than `chunk` are sent in pieces, each landing in its place of one Buffer.
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
        """As `fetch`, each with its index as soon as it is complete; an Error takes the place of its Buffer.
        Anything else that a read ends with, such as MemoryError, is raised.

        ordered: in order; then at most `concurrent` are under way or wait for their turn.
        """
        ...

    def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "Awaitable[list[Buffer]]":
        """As `fetch`, awaited: all requests are begun before the loop gets its turn."""
        ...

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        """Begin one request; `waiter` is told the Buffer or the Error, perhaps before this returns.

        Over a network it is sent in pieces of `chunk`, of the Reader's own if None.

        Iterating asynchronously is made of this alone (flight.py). A waiter that is `done` no longer wants an answer.
        """
        ...

    def prefetch(self, starts: Offsets, lengths: Offsets) -> None:
        """A hint that these ranges will be read soon; see `Reader.prefetch`. Returns at once."""
        ...

    def yield_if_due(self) -> Awaitable[object]:
        """Give other tasks of the loop a turn, if reads that did not have to wait have held it for long.

        ClosedError, by the call or the await, if reads are refused.
        """
        ...

    def near(self) -> int:
        """What ``gap="auto"`` means now, in bytes. No I/O."""
        ...

    def stat_async(self) -> Awaitable[Stat]:
        """As `stat`, awaited."""
        ...

    def stat(self) -> Stat:
        """Ask again; ObjectChangedError if it is pinned and changed."""
        ...

    def within(self, timeout: Timeout) -> "Source":
        """The same object, reads of which have other time limits; itself where there is nothing to wait for.

        It has nothing open of its own and is not closed; it ends with this one.
        """
        ...

    def close(self) -> None:
        """Refuse new reads; a second call does nothing."""
        ...


class Service(Protocol):
    """One storage, configured."""

    scheme: str
    defaults: Options
    versions: bool
    """Whether it keeps more than one version of an object, so that `version=` means something."""

    def open(self, path: str, options: Options) -> Source:
        """Open an object. NotFoundError, PermissionDeniedError and so on."""
        ...

    def address(self, path: str) -> str:
        """The path by which another process opens the same object, without a login; with a signature, if it has one."""
        ...

    def absolute(self, path: str) -> str:
        """The path that means the same later in this process, whatever the current directory is by then."""
        ...

    def shown(self, path: str) -> str:
        """The path as people may see it: without credentials."""
        ...

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        """The objects whose path begins with `prefix`, sorted by path; see `Operator.list`. The call does no I/O."""
        ...

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        """(path, start, stop) each: one range of each of many objects. A job that fails has its exception there."""
        ...

    def for_one(self) -> None:
        """Only one object will be opened: keep nothing when it is closed."""
        ...

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options as they may be written down."""
        ...


@runtime_checkable
class ListsAwaited(Protocol):
    """A Service that waits for a network to list."""

    def list_async(self, prefix: str, delimiter: str | None, options: Options) -> AsyncIterator[Stat]:
        """As `list`, awaited."""
        ...


@runtime_checkable
class Presigns(Protocol):
    """A Service that can let somebody else read, for a time."""

    def presign(self, path: str, expires: float | timedelta, options: Options) -> str:
        """A URL that needs no credentials. See `Operator.presign`."""
        ...


def rolled_up(found: Iterable[Stat], prefix: str, delimiter: str | None) -> Iterator[Stat]:
    """Of a sorted listing: what has `delimiter` after `prefix` stands there once, as the prefix up to and with it."""
    before = None
    for stat in found:
        end = stat.path.find(delimiter, len(prefix)) if delimiter else -1
        if not delimiter or end < 0:
            yield stat
        elif (name := stat.path[: end + len(delimiter)]) != before:
            yield Stat(before := name, None, is_prefix=True)
