"""What the native core and its pure-Python twin share: records, arguments, and the one door for errors.

Nothing here does I/O or knows which backend runs, so both can import it.
"""

import errno as _errno
import io
import operator
import os
import re
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, SupportsIndex

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer as SupportsBuffer

OFFSET_MAX = 2**63 - 1
"""Largest offset, length and end: off_t is signed. What would end beyond it ends there."""

REQUEST_ROOM = 8128
"""Bytes of text that a request may have for `Reactor.steady`, beside its two numbers."""

MEASURED = 128 << 10
"""A response of fewer bytes comes in one go with its head, so it says nothing of how fast bytes come."""

MOST_IDLE_S = 60.0
"""A connection that was idle for longer is not used again: servers close them after 5 s (Apache) to 75 s (nginx)."""

HANDED_OUT = 0xCD
"""What memory is filled with before a read, where it is poisoned: as CPython's debug allocator has it."""
GIVEN_BACK = 0xDD
"""What it is filled with when it is given back."""


def poisons(default: bool) -> bool:
    """Whether memory is to be poisoned, so that a byte nobody wrote is seen: RANGEIO_POISON=1 or 0, else `default`."""
    return os.environ.get("RANGEIO_POISON", "1" if default else "0") not in ("", "0")


ErrorKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]
"""``"failed"``: an exception where none was expected, named in `detail`."""


class ErrorFactory(Protocol):
    """Make the exception to raise. `errno` is 0 unless `kind` is ``"errno"``; offset and limit may be None."""

    def __call__(
        self, kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
    ) -> BaseException: ...


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


def _builtin_error(
    kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
) -> BaseException:
    """The factory until another is set: the builtin exceptions, so that the core can be used alone."""
    asked = "" if offset is None else f" (offset {offset}, limit {limit})"
    text = f"{path!r}{asked}: {detail or kind}"
    if kind == "errno":
        return OSError(errno, f"{os.strerror(errno)}{asked}{': ' if detail else ''}{detail}", path)
    if kind == "eof":
        return EOFError(text)
    if kind == "closed":
        return ValueError(text)
    if kind == "unsupported":
        return io.UnsupportedOperation(text)
    if kind == "failed":
        return OSError(_errno.EIO, text)
    return OSError(getattr(_errno, "ESTALE", _errno.EIO), text)


_Kinds = tuple[type[BaseException], ...]
_BUILTIN: _Kinds = (OSError, EOFError, ValueError)

_factory: ErrorFactory = _builtin_error
_tree: _Kinds = _BUILTIN


def set_error_factory(factory: ErrorFactory, tree: _Kinds = _BUILTIN) -> None:
    """Have every error of the core made by `factory`, in this process, from now on. tree: the classes it makes."""
    global _factory, _tree
    _factory, _tree = factory, tree


_default_reactor: Callable[[], Any]


def set_default_reactor(reactor: Callable[[], Any]) -> None:
    """Say whose memory is used where nobody is there to choose: `reactor()`."""
    global _default_reactor
    _default_reactor = reactor


def restored_buffer(data: "SupportsBuffer", shape: tuple[int, ...]) -> Any:
    """A Buffer of this process, with bytes that came in a pickle or beside it."""
    reactor = _default_reactor()
    buffer = reactor.allocate(shape if len(shape) == 2 else shape[0])
    reactor.writable(buffer)[:] = memoryview(data).cast("B")
    return buffer


def make_error(
    kind: ErrorKind,
    errno: int = 0,
    path: str = "",
    offset: int | None = None,
    limit: int | None = None,
    detail: str = "",
) -> BaseException:
    """The exception for one failure, to be raised by the caller. Keyword or positional, as the factory takes them."""
    return _factory(kind, errno, path, offset, limit, detail)


def is_failure(error: BaseException) -> bool:
    """Whether a read may end with it as it is."""
    return isinstance(error, _tree)


def as_failure(
    error: BaseException, path: str = "", offset: int | None = None, limit: int | None = None
) -> BaseException:
    """`error`, raised where nobody asked for anything, as one that a read may end with; it is the cause of another."""
    if is_failure(error):
        return error
    if isinstance(error, OSError) and error.errno:
        made = make_error("errno", error.errno, path, offset, limit)
    else:
        made = make_error("failed", 0, path, offset, limit, f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made


def unpicklable(path: str) -> TypeError:
    """What is raised by all that is made of a file that cannot be opened in another process."""
    return TypeError(
        f"cannot pickle what reads {path!r}: a descriptor means nothing in another process; open the file by path there"
    )


def without_frames(error: BaseException) -> BaseException:
    """`error` as a value: its traceback would keep the frames it passed, and all they hold, until a collection."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def byte_index(value: SupportsIndex, name: str) -> int:
    """`value` as a plain int from 0 to 2**63 - 1. TypeError for floats, ValueError below, OverflowError above."""
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    if number > OFFSET_MAX:
        raise OverflowError(f"{name} must be below 2**63, got {number}")
    return number


def byte_array(values: Any, name: str) -> "npt.NDArray[np.int64]":
    """`values` as a C-contiguous int64 array of one dimension; every one under the rules of `byte_index`.

    A copy, also of an int64 array: what the caller does with his while an awaited read is under way must not matter.
    """
    if not isinstance(values, np.ndarray):
        if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
            raise TypeError(f"{name} must be a sequence of integers, not {type(values).__name__}")
        values = values if isinstance(values, (list, tuple)) else list(values)
        try:
            # array("q") refuses floats and takes whatever has __index__, at a quarter of the cost of a Python loop.
            numbers = np.frombuffer(array("q", values), dtype=np.int64)
        except OverflowError:
            numbers = np.array([byte_index(value, name) for value in values])  # raises, and says for which
    elif values.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integers, not {values.dtype}")
    elif values.dtype.kind == "u" and values.size and int(values.max()) > OFFSET_MAX:
        raise OverflowError(f"{name}: every one must be below 2**63, got {values.max()}")
    else:
        numbers = np.array(values, dtype=np.int64, order="C")
    if numbers.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {numbers.ndim}")
    if numbers.size and (least := int(numbers.min())) < 0:
        raise ValueError(f"{name} must not be negative, got {least}")
    return numbers


def byte_arrays(starts: Any, lengths: Any) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]":
    """The checked arguments of a batch: two arrays of one size."""
    first, second = byte_array(starts, "starts"), byte_array(lengths, "lengths")
    if first.size != second.size:
        raise ValueError(f"starts and lengths differ in size: {first.size} and {second.size}")
    return first, second


# In the format of a buffer (PEP 3118): objects, pointers, functions, and C strings by reference. Zf, Zd and Zg are
# complex numbers. Names of fields stand between colons.
_POINTERS = re.compile(r"[OPz&]|X\{|Z(?![fdg])")
_NAMES = re.compile(r":[^:]*:")


def check_plain(format: str) -> None:
    """TypeError if memory of that format holds pointers: bytes of a file, taken for one, would end the process."""
    if _POINTERS.search(_NAMES.sub("", format)):
        raise TypeError(
            f"the destination holds objects or pointers (format {format!r}); read into bytes or numbers instead"
        )


def writable_bytes(destination: "SupportsBuffer") -> memoryview:
    """The bytes of `destination`, to be filled. TypeError unless writable and of plain numbers, BufferError unless
    C-contiguous.
    """
    try:
        view = memoryview(destination)
    except ValueError:
        # numpy has no format for dates, which are plain numbers, and none for its strings, which are pointers.
        if not isinstance(destination, np.ndarray):
            raise
        if destination.dtype.hasobject:
            check_plain("O")
        view = destination.view(np.ndarray).view(f"V{destination.itemsize}").data
    if view.format != "B":
        check_plain(view.format)
    if view.readonly:
        raise TypeError(f"the destination must be writable; this {type(destination).__name__} is read-only")
    if not view.c_contiguous:
        raise BufferError("the destination must be C-contiguous; copy it, or read into a contiguous part")
    if view.nbytes == 0:
        return memoryview(bytearray())
    # Through numpy because memoryview.cast() refuses formats it does not know, such as those of records.
    return np.frombuffer(view, dtype=np.uint8).data
