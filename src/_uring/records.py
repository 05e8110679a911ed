"""What the core and its twin in Python give and take: the records, and the protocols of the HTTP reads."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REQUEST_ROOM = 8128
"""Bytes of text that a request may have for `Reactor.steady`, beside its two numbers."""

MEASURED = 128 << 10
"""A response of fewer bytes comes in one go with its head, so it says nothing of how fast bytes come."""

MOST_IDLE_S = 60.0
"""A connection that was idle for longer is not used again: servers close them after 5 s (Apache) to 75 s (nginx)."""


class Expected(Protocol):
    """What a plain response says of one version of an object; made from what its first response said.

    size: bytes in it. etag, modified, encoding: the values of ETag, Last-Modified and Content-Encoding, None for those
    that were not there. A strong ETag that is equal counts more than a date; a weak one, or none, wants an equal date.
    """

    size: int
    etag: bytes | None
    modified: bytes | None
    encoding: bytes | None

    def accepts(self, head: "bytes | bytearray | memoryview", start: int, stop: int, /) -> int:
        """How long a head is, its empty line included, with which the response brings just the bytes `start` to `stop`
        of that version, over a connection that goes on. 0 if there is no end of it yet, perhaps; -1 if it is another
        one, or says this in an odd way: that is for others to judge.
        """


class Connection(Protocol):
    """A connected socket, to be derived from. `attach` says which. The core receives over it with MSG_DONTWAIT, or
    waits as long as SO_RCVTIMEO says.

    space: where heads are received; it keeps its size. used: whether a response has come over it. absolute: whether
    requests name the whole URL, as a proxy wants it.
    """

    fd: int
    space: bytearray
    used: bool
    absolute: bool

    def attach(self, fd: int, /) -> None: ...
    @property
    def idle_s(self) -> float:
        """Seconds since it was given back."""


class IdleConnections(Protocol):
    """The idle connections to one server, the one used last first. Any thread: each call is one step under the GIL.

    wanted: others wait for them, or nobody is to keep them. Then the core gives none back here: the pool decides.
    """

    wanted: bool

    def __len__(self) -> int: ...
    def keep(self, connection: Any, /) -> None:
        """Give it back, wanted or not."""

    def take(self) -> Any:
        """The one used last, or None."""

    def take_oldest(self) -> Any: ...
    def peek(self) -> Any:
        """What `take` would give."""

    def longest_s(self) -> float:
        """For how long the oldest one has been idle."""

    def clear(self) -> list[Any]:
        """Take all."""


class RangeRequest(Protocol):
    """A request for a range of one version of an object, and what its response has to say.

    before, after: the texts around ``first-last``.
    """

    before: bytes
    after: bytes
    expected: Expected


class Unfinished(NamedTuple):
    """A read that was begun in the steady state and is to be gone on with by the engine.

    destination: the Buffer or the memory, to be taken out of the list, so that no traceback holds it. head: all that
    came before the bytes of the body; or all that came, where that does not begin with a plain head. placed: bytes of
    the body that are in their place. errno: 0 at the end of the connection, EAGAIN if nothing is wrong with it. sent,
    since: when the request was sent, and when something came last (time.monotonic). error: what broke it, if no errno
    says so.
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
    error: OSError | None = None


class Batch(Protocol):
    """Ranges that are read over several connections at once. To be closed; for one thread at a time."""

    @property
    def begun(self) -> int:
        """Up to which they were, in order."""

    def next(self) -> "tuple[int, Any] | None":
        """The index and the Buffer of one that has landed; None after the last one begun, or once one is unusual."""

    def unfinished(self) -> list[tuple[int, Unfinished]]:
        """Those under way, by index; other connections are given back. Nothing more can be read."""

    def close(self) -> None:
        """Give the connections back, and close those on which something is under way. A second call does nothing."""


class SteadyReads(Protocol):
    """Reads of one object whose version and size are known, over idle connections, without the engine.

    Each method returns None where that cannot be done now, and then nothing has happened: a range is large, or not
    within the object, there is no idle connection, its time is over. Any thread; the GIL is given up while it waits.
    """

    @property
    def good(self) -> bool:
        """Whether its time is not over."""

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
        """Those for which `buffers` has none yet, over `concurrent` connections at once: as far as they go well, and
        its time is not over. Appends a Buffer for each that was begun, and returns which of these are not there yet, by
        index. began: when the caller's call did (time.monotonic), for the time that all of it may take.
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
        """The same one by one, as they land. `concurrent` are under way, or have landed and were not taken."""


class LoopTransfers(Protocol):
    """Reads of steady states that are awaited on one event loop, which calls `poll` when `fileno` is readable.

    For the loop's own thread. What a read is known by is what `start` returns; token: what the caller gave for it.
    """

    @property
    def inherited(self) -> bool:
        """Whether this is a child forked since: then it must not be used, as what is under way is the parent's."""

    def __len__(self) -> int:
        """How many reads are under way."""

    def fileno(self) -> int: ...
    def start(
        self, steady: "SteadyReads | None", start: int, count: int, into: "memoryview | None", token: Any, /
    ) -> "Any | Unfinished | None":
        """Begin a read; None where that cannot be done now, as of SteadyReads."""

    def poll(self) -> "list[tuple[Any, Any]]":
        """(token, result) of those that are over: a Buffer, the bytes read, an Unfinished, or an exception."""

    def late(self) -> list[Any]:
        """Reads that were silent for long, or take too long in all."""

    def under_way(self) -> list[Any]: ...
    def hand_over(self, read: Any, /) -> Unfinished:
        """Let the engine go on with it."""

    def cancel(self, read: Any, /) -> None:
        """Nobody waits for it any more. Its connection is closed."""


class FileStat(NamedTuple):
    """What fstat(2) says of an open file now. `size` is None where the file system does not know it (/proc, /sys)."""

    size: int | None
    mtime_ns: int
    device: int
    inode: int


class Backend(NamedTuple):
    """What the reactor reads with. `str()` of it is the name."""

    name: Literal["uring", "pool", "python"]
    reason: str
    """Why this one: the library and features found, or what refused the ring and what to do about it."""
    liburing: str
    """Path of the liburing in use, empty if none."""
    tried: tuple[tuple[str, str], ...]
    """Every liburing that was considered, with what came of it."""

    def __str__(self) -> str:
        return self.name
