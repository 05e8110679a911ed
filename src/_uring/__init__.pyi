"""The surface of the native core: all that `rangeio` may use of it.

The same names come from the compiled extension (backends ``uring`` and ``pool``) and from
`_uring.pure.reactor` (backend ``python``), so nothing above needs to know which one runs.

Rules that hold for every call:

- Offsets and lengths are bytes, integers by ``operator.index`` (numpy integers pass, floats are
  `TypeError`), at least 0 (`ValueError`), below 2**63 (`OverflowError`). They are checked before any I/O.
- A result is full, or ends at the end of the object; one past the end is empty, not an error.
- Every call may be made from any thread; the GIL is not held while a call waits.
- Errors other than those of arguments come from the factory given to `set_error_factory`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, SupportsIndex, TypeVar, overload

import numpy.typing as npt
from typing_extensions import Buffer as SupportsBuffer
from typing_extensions import Self

from _uring import records
from _uring.records import SteadyReads
from _uring.waiters import Waiter

_T = TypeVar("_T")

ErrorKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]

class ErrorFactory(Protocol):
    """Make the exception to raise. `errno` is 0 unless `kind` is ``"errno"``; offset and limit may be None."""

    def __call__(
        self, kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
    ) -> BaseException: ...

def set_error_factory(factory: ErrorFactory, tree: tuple[type[BaseException], ...] = ...) -> None: ...

class Buffer:
    """Bytes that a read has returned: a row of bytes, or a table of records. Read-only, and not copied.

    Made by reads only: `Reader.read_batch` makes tables, the other methods rows, and `rangeio.from_bytes` makes a
    Reader of bytes that you have.

    What takes bytes-like objects takes a Buffer, without a copy: ``memoryview(buffer)``, ``numpy.frombuffer(buffer,
    dtype)``, ``pyarrow.py_buffer``, ``torch.frombuffer``, ``zlib``, ``file.write``. What insists on `bytes`
    (``json.loads``, say) is given a copy: ``bytes(buffer)``. Nothing that wants to write gets the memory (BufferError),
    but for ``numpy(writable=True)``.

    ``len(buffer)`` and ``buffer[i]`` count bytes; of a table they count records, and ``buffer[i]`` is one record, a
    Buffer. ``buffer[a:b]`` is a Buffer, too, of the same memory; its step is 1 (ValueError). ``==`` compares the bytes
    with those of any bytes-like object; shapes are not compared. A Buffer has no hash.

    Slices, views and arrays share the memory of the read. It goes back to the pool when the last of them is gone; the
    Reader may be closed before. A short slice keeps all of it: see `nbytes_pinned` and `compact`. `release` gives it
    back early, and so does the end of a ``with buffer:``. After that every use of the bytes is a ValueError.

    Threads: any number may use a Buffer at once, since nobody writes to it. `release` and ``numpy(writable=True)``
    notice whoever still looks at the memory, in whatever thread.

    Pickles as a copy of its bytes and its shape, also through a multiprocessing queue, or by protocol 5 beside the
    pickle (``buffer_callback``); it is unpickled into memory of the receiving process. `copy.copy` copies the bytes.
    """

    @property
    def nbytes(self) -> int:
        """Bytes in all, also of a table; 0 after `release`."""
    @property
    def nbytes_pinned(self) -> int:
        """Bytes of pool memory that this Buffer keeps from being reused: all that its read has taken."""
    @property
    def shape(self) -> tuple[int, ...]:
        """``(nbytes,)``; of a table ``(records, bytes of each)``; ``(0,)`` after `release`."""
    @property
    def released(self) -> bool:
        """Whether the memory was given back by `release`."""
    def __len__(self) -> int:
        """Bytes; of a table, its records."""
    @overload
    def __getitem__(self, index: slice) -> Buffer: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> int | Buffer:
        """A byte as an int, a record as a Buffer, or a slice as a Buffer; see the class."""
    def __eq__(self, other: object) -> bool:
        """Equal to any bytes-like object with the same bytes (shape is not compared)."""
    __hash__: None  # type: ignore[assignment]
    def __bytes__(self) -> bytes:
        """As `tobytes`."""
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def tobytes(self) -> bytes:
        """A copy of the bytes, those of a table row by row. ValueError after `release`."""
    def numpy(
        self,
        dtype: npt.DTypeLike = "u1",
        shape: int | tuple[int, ...] | None = None,
        *,
        writable: bool = False,
    ) -> npt.NDArray[Any]:
        """An array over the same memory, read-only.

        dtype: of its items, in the byte order that it says. shape: in items; by default one row, and of a table
        (records, items of each) where a record is a whole number of items. ValueError if the bytes are not a whole
        number of items, or do not fill the shape, if the items are Python objects, and after `release`.

        With `writable` the memory is handed over if nothing else looks at it (no view, no slice): the array may be
        written, and until it dies the Buffer gives out no other view (BufferError). Else, and always with the backend
        ``python``, the array is a copy.
        """
    def compact(self) -> Buffer:
        """This Buffer if it pins little more than its own bytes (`nbytes_pinned`), else a copy that does.

        For what is kept long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
        """
    def release(self) -> None:
        """Give the memory back now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews, arrays. Slices are Buffers of their own: they stay
        valid, and the memory goes when they are gone, too.
        """
    def __dlpack__(self, **kwargs: Any) -> Any:
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer knows no read-only memory."""
    def __dlpack_device__(self) -> tuple[int, int]:
        """``(1, 0)``: memory of the CPU."""
    def __enter__(self) -> Self:
        """Itself."""
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `release`."""

class FileStat(NamedTuple):
    """What fstat(2) says of an open file now. `size` is None where the file system does not know it (/proc, /sys)."""

    size: int | None
    mtime_ns: int
    device: int
    inode: int

class File:
    """One open regular file, read by position. No cursor, no lock; made by `Reactor.open`."""

    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def size(self) -> int | None:
        """Bytes at the time of opening (of now, if not pinned); None where the file system does not know it."""
    @property
    def direct(self) -> bool:
        """Whether reads use O_DIRECT."""
    @property
    def direct_reason(self) -> str:
        """Why `direct` is what it is, for people to read."""
    @property
    def alignment(self) -> int:
        """What O_DIRECT wants offsets and lengths to be multiples of; 0 where it is not supported.

        4096 where statx(2) does not say (before Linux 6.1, and some file systems), until `direct=True` has tried it.
        """
    again: tuple[Callable[..., Any], tuple[Any, ...]] | None
    """What it pickles as, given by its owner: a function and its arguments. None if it does not pickle."""
    def fileno(self) -> int: ...
    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> Buffer:
        """`limit` bytes from `offset`; fewer only at the end of the file, none at or past it. `limit` 0 does no I/O.

        ValueError for negative numbers, TypeError for anything but integers, OverflowError from 2**63 on, all before
        any I/O.
        """
    def read_into(self, buffer: SupportsBuffer, offset: SupportsIndex = 0) -> int:
        """Fill a writable C-contiguous buffer from `offset`; the bytes read, fewer than its size only at the end.

        TypeError if it is read-only or holds Python objects or pointers, BufferError if it is not contiguous, before
        any I/O.
        """
    def read_many(self, starts: Any, lengths: Any, concurrent: int = 0) -> list[Buffer]:
        """One Buffer for each (start, length), in order, each short only at the end of the file.

        starts, lengths: sequences of int or int64 arrays of the same size. The requests are sent as they are:
        nothing is merged. concurrent: most requests in flight, 0 for the reactor's choice.
        """
    def iter_many(
        self, starts: Any, lengths: Any, concurrent: int = 0, ordered: bool = False
    ) -> Iterator[tuple[int, Buffer]]:
        """As `read_many`, each as (index, Buffer) as soon as it is complete. Closing the iterator stops reading.

        ordered: in the order given; then at most `concurrent` are under way or wait for their turn.
        """
    def read_batch(self, offsets: Any, length: SupportsIndex) -> Buffer:
        """The records of `length` bytes at `offsets` as one table of shape (len(offsets), length).

        A record that would pass the end is an ``"eof"`` error (its index in `detail`); nothing is returned then.
        """
    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> Awaitable[Buffer]:
        """As `read_at`, to be awaited under asyncio or trio. Arguments are checked by this call, not by the await.

        What the page cache has is read before this returns: the awaitable is done already, or gives the loop one turn
        when hot reads have held it for long. Cancelling returns at once; the read keeps its memory and file until it
        completes.
        """
    def read_into_async(self, buffer: SupportsBuffer, offset: SupportsIndex = 0) -> Awaitable[int]:
        """As `read_into`, awaited. A cancellation ends when nobody writes to the buffer any more; no more is begun."""
    def read_many_async(self, starts: Any, lengths: Any, concurrent: int = 0) -> Awaitable[list[Buffer]]: ...
    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> Awaitable[Buffer]:
        """As `read_batch`, awaited."""
    def begin_at(self, offset: int, limit: int, waiter: Waiter) -> None:
        """Start reading a range in the running loop; `waiter` is given the result, perhaps before this returns."""
    def stat(self) -> FileStat: ...
    def close(self) -> None:
        """Refuse new reads; reads in flight complete, Buffers stay valid. A second call does nothing."""

class Backend(NamedTuple):
    """What the reactor reads with. `str()` of it is the name."""

    name: Literal["uring", "pool", "python"]
    reason: str
    """Why this one: the library and features found, or what refused the ring and what to do about it."""
    liburing: str
    """Path of the liburing in use, empty if none."""
    tried: tuple[tuple[str, str], ...]
    """Every liburing that was considered, with what came of it."""

class Reactor:
    """Owns the memory, the rings and the worker threads."""

    def __init__(
        self,
        *,
        entries: int = 256,
        pool_bytes: int | None = None,
        backend: Literal["auto", "uring", "pool", "python"] = "auto",
        workers: int = 8,
    ) -> None:
        """entries: of each ring. pool_bytes: free memory kept for reuse (an eighth of the machine's, at most 2 GiB)."""
    @property
    def backend(self) -> Backend: ...
    def open(self, path: str | bytes, *, direct: bool | Literal["auto"] = "auto", pin: bool = True) -> File:
        """Open a regular file. A directory, FIFO or socket is refused without blocking."""
    def from_fd(
        self,
        fd: int,
        *,
        closefd: bool = False,
        direct: bool | Literal["auto"] = "auto",
        pin: bool = True,
        path: str = "",
    ) -> File:
        """As `open`, of a file that is open already.

        closefd: take `fd` over, and close it; not if this raises.
        """
    def read_files(
        self, jobs: Sequence[tuple[str, int, int | None]], *, pin: bool = True
    ) -> list[Buffer | BaseException]:
        """(path, start, stop) each; opens and reads many at once, a bounded number of files open at a time.

        `stop` None reads to the end. A job that fails has its exception in its place. pin: a file that was written to
        between its opening and the end of its read is a ``"changed"`` error; else the bytes may be of both versions.
        """
    def allocate(self, shape: int | tuple[int, int]) -> Buffer:
        """A Buffer of so many bytes, or a table of (records, length), with whatever the memory held before."""
    def writable(self, buffer: Buffer) -> memoryview:
        """The memory of a Buffer that `allocate` made, to be filled (by a socket, say).

        BufferError once anybody has looked at its bytes, and for what a read of the core has returned: those are final.
        """
    def steady(
        self,
        idle: IdleConnections,
        request: RangeRequest,
        give_back: Callable[[Any], object],
        /,
        *,
        most: int,
        absolute: bool,
        good_s: float,
        timeout: tuple[float, float | None],
        asked: Callable[[], object],
        answered: Callable[[], object],
        measured: Callable[[float, float, int], object],
    ) -> SteadyReads | None:
        """Reads of what `request` asks for, over `idle` connections; None with backend ``python``.

        give_back: takes a connection that others want. most: bytes of a range. absolute: which connections the request
        is for. good_s: how long it may be used. timeout: after how many seconds of silence a read is handed over, and
        in all. asked, answered: called for each. measured: called for each large response with the seconds until its
        head came, those from there to its end, and its bytes.
        """
    def stats(self) -> dict[str, int]:
        """Counters since the start: reads, bytes_asked, bytes_fetched, inline_hits, ring_enters, ring_reads,
        pool_reads, fallbacks; and of now: buffers_live, bytes_live, bytes_pooled, bytes_mapped, files_open
        (each once, until the last read of it has ended), in_flight."""
    def close(self) -> None: ...

def ready(value: _T, nbytes: int = 0) -> Awaitable[_T]:
    """An awaitable of a value that is there already, of so many bytes.

    Awaiting it takes no turn of the loop. But after 64 of them or 4 MiB the loop gets one, so that other tasks go on
    and cancellations arrive. It counts with the reads that the page cache answers.
    """

def refused(error: BaseException) -> Awaitable[Any]:
    """An awaitable that raises `error`, and counts as `ready` does.

    Only for what the error factory makes; anything else (RuntimeError, where no loop runs) is raised by this call.
    """

def yield_if_due() -> Awaitable[None]:
    """``ready(None)``: for the head of a coroutine that may end without having waited."""

def default_reactor() -> Reactor:
    """The process's reactor, made on first use (backend from RANGEIO_BACKEND) and made anew in a forked child."""

def extension_error() -> str:
    """Why the compiled extension is not there; empty if it is."""

class Expected:
    """See `Expected` in records.py."""

    def __init__(
        self, size: int, etag: bytes | None, modified: bytes | None, encoding: bytes | None, /
    ) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> bytes | None: ...
    @property
    def modified(self) -> bytes | None: ...
    @property
    def encoding(self) -> bytes | None: ...
    def accepts(self, head: bytes | bytearray | memoryview, start: int, stop: int, /) -> int: ...

class RangeRequest:
    """See `RangeRequest` in records.py."""

    def __init__(self, before: bytes, after: bytes, expected: Expected, /) -> None: ...
    @property
    def before(self) -> bytes: ...
    @property
    def after(self) -> bytes: ...
    @property
    def expected(self) -> Expected: ...

class Connection:
    """See `Connection` in records.py."""

    used: bool
    absolute: bool

    @property
    def fd(self) -> int: ...
    @property
    def space(self) -> bytearray: ...
    @property
    def idle_s(self) -> float: ...
    def attach(self, fd: int, /) -> None: ...
    def has_nothing(self) -> bool:
        """Whether it is open and nothing has come. Not there with backend ``python``."""

class IdleConnections:
    """See `IdleConnections` in records.py."""

    wanted: bool

    def __len__(self) -> int: ...
    def keep(self, connection: Any, /) -> None: ...
    def take(self) -> Any: ...
    def take_oldest(self) -> Any: ...
    def peek(self) -> Any: ...
    def longest_s(self) -> float: ...
    def clear(self) -> list[Any]: ...

LoopTransfers: Callable[[], records.LoopTransfers] | None
"""None with backend ``python``."""
