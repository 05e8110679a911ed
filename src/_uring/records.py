"""Records and protocols shared by the core and its twin in Python, including those of the HTTP reads."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import numpy as np
    import numpy.typing as npt

REQUEST_ROOM = 8128
"""Maximum bytes of a request's text for `Reactor.steady`, without its two numbers."""

MEASURED = 128 << 10
"""Minimum size of a response to measure throughput. A smaller one arrives together with its head."""

MOST_IDLE_S = 60.0
"""A connection that was idle for longer is not reused: servers close them after 5 s (Apache) to 75 s (nginx)."""


class Expected(Protocol):
    """The fields that a plain response must have for one version of an object, taken from its first response.

    size: of the object in bytes. etag, modified, encoding: the values of ETag, Last-Modified and Content-Encoding; None
    if missing. If a strong ETag is equal, the date is ignored. With a weak ETag, or none, the date must be equal too.
    """

    size: int
    etag: bytes | None
    modified: bytes | None
    encoding: bytes | None

    def accepts(self, head: "bytes | bytearray | memoryview", start: int, stop: int, /) -> int:
        """The length of a plain head, including its empty line: the response has exactly the bytes `start` to `stop` of
        this version, over a persistent connection. 0 if the head may be incomplete. -1 if it is not plain: the HTTP
        engine then handles the response.
        """


class Connection(Protocol):
    """Base class of a connected socket, set by `attach`. The core receives on it with MSG_DONTWAIT, or blocks up to
    SO_RCVTIMEO.

    space: heads are received here; its size is fixed. used: whether a response has been received on it. absolute:
    whether requests name the whole URL, as a proxy requires.
    """

    fd: int
    space: bytearray
    used: bool
    absolute: bool

    def attach(self, fd: int, /) -> None: ...
    @property
    def idle_s(self) -> float:
        """Seconds since it became idle."""


class IdleConnections(Protocol):
    """A stack of idle connections to one server, the most recently used on top. Thread-safe: calls are atomic (GIL).

    wanted: requests are waiting for connections, or none are to be kept. The core then returns connections to the
    connection pool instead, which decides.
    """

    wanted: bool

    def __len__(self) -> int: ...
    def keep(self, connection: Any, /) -> None:
        """Add a connection, even if `wanted`."""

    def take(self) -> Any:
        """Remove and return the most recently used one, or None."""

    def take_oldest(self) -> Any: ...
    def peek(self) -> Any:
        """The one that `take` would return."""

    def longest_s(self) -> float:
        """Seconds that the oldest one has been idle."""

    def clear(self) -> list[Any]:
        """Remove and return all."""


class RangeRequest(Protocol):
    """A request for a range of one version of an object, and the response it expects.

    before, after: the text of the request before and after ``first-last``.
    """

    before: bytes
    after: bytes
    expected: Expected


class Unfinished(NamedTuple):
    """A read that was started in the steady state and is to be continued by the HTTP engine.

    destination: a list with the Buffer or memory; take it out, so that no traceback references it. head: all bytes
    received before the body; or all bytes received, if they do not start with a plain head. placed: bytes of the body
    already in the destination. errno: 0 at the end of the connection, EAGAIN if the connection is intact. sent, since:
    times of the request and of the last bytes received (time.monotonic). asked: the text of the request before its
    numbers. error: the failure, if it has no errno.
    """

    connection: Any
    destination: list[Any]
    start: int
    stop: int
    head: bytes
    placed: int
    errno: int
    sent: float
    since: float
    asked: bytes
    error: OSError | None = None


class Batch(Protocol):
    """Ranges that are read over several connections at once. Must be closed. For one thread at a time."""

    @property
    def begun(self) -> int:
        """Ranges are started in order; those below this index were started."""

    def next(self) -> "tuple[int, Any] | None":
        """The index and Buffer of a complete range. None after the last started one, or after an unusual response."""

    def unfinished(self) -> list[tuple[int, Unfinished]]:
        """The reads in flight, by index. Other connections become idle. After this, nothing more can be read."""

    def close(self) -> None:
        """Release the connections; close those with a read in flight. A second call does nothing."""


class SteadyReads(Protocol):
    """Reads of one object whose version and size are known, over idle connections, without the HTTP engine.

    Each method returns None, and does nothing, if the read is not possible here: a range is too large or not within the
    object, no connection is idle, or the request has expired. Thread-safe. The GIL is released while waiting.
    """

    @property
    def good(self) -> bool:
        """Whether the request has not expired."""

    def read_at(self, offset: object, limit: object, /) -> Any:
        """A Buffer, an Unfinished or None."""

    def read_into(self, view: memoryview, start: int, /) -> "int | Unfinished | None": ...
    def read_many(
        self,
        starts: "npt.NDArray[np.int64]",
        lengths: "npt.NDArray[np.int64]",
        buffers: list[Any],
        concurrent: int,
        began: float,
        /,
    ) -> "list[tuple[int, Unfinished]] | None":
        """Read the ranges from index `len(buffers)` on, over `concurrent` connections, until a response is unusual or
        the request expires. Appends a Buffer for each started range. Returns those of them that are unfinished, by
        index. began: start of the caller's call (time.monotonic), for the total timeout.
        """

    def iter_many(
        self,
        starts: "npt.NDArray[np.int64]",
        lengths: "npt.NDArray[np.int64]",
        first: int,
        concurrent: int,
        began: float,
        /,
    ) -> "Batch | None":
        """The same, one at a time, as they complete. At most `concurrent` are in flight, or complete and not taken."""


class Reader(Protocol):
    """The source of async reads of a steady state: what the core calls where a read is not plain."""

    def read_soon(self, start: int, count: int, into: "memoryview | None", /) -> "Awaitable[Any]":
        """Make a read that could not be started in the core."""

    def otherwise(
        self,
        found: "Unfinished | Exception",
        start: int,
        stop: int,
        into: "memoryview | None",
        waiter: Any,
        key: object,
        /,
    ) -> Any:
        """Continue a read that the core started, or resolve `waiter` with the exception. Return None, or an object
        whose `cancel` is called if the waiter is cancelled. key: of the loop, which may not be the running one.
        """


class FileStat(NamedTuple):
    """The current fstat(2) of an open file. `size` is None where the file system does not report it (/proc, /sys)."""

    size: int | None
    mtime_ns: int
    device: int
    inode: int


class Backend(NamedTuple):
    """The mechanism that the reactor reads with. `str()` of it is the name."""

    name: Literal["uring", "pool", "python"]
    reason: str
    """Why it was chosen: the library and features found, or what refused the ring and how to fix that."""
    liburing: str
    """Path of the liburing in use; empty if none."""
    tried: tuple[tuple[str, str], ...]
    """Every liburing that was tried, with the outcome."""

    def __str__(self) -> str:
        return self.name
