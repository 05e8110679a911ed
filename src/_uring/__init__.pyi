"""The interface of the native core: everything that `rangeio` may use of it.

The compiled extension (backends ``uring`` and ``pool``) and `_uring.pure.reactor` (backend ``python``)
provide the same names, so the layers above do not need to know which one runs.

Rules for every call:

- Offsets and lengths are in bytes. They are converted with ``operator.index`` (numpy integers pass, floats are a
  `TypeError`), and must be at least 0 (`ValueError`) and below 2**63 (`OverflowError`). This is checked before any I/O.
- A result is complete, or ends at the end of the object. A read past the end returns no bytes, not an error.
- All calls are thread-safe. A call that waits releases the GIL.
- Errors, except those for invalid arguments, come from the factory given to `set_error_factory`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, SupportsIndex, TypeVar, overload

import numpy.typing as npt
from typing_extensions import Buffer as SupportsBuffer
from typing_extensions import Self

from _uring import records
from _uring.pure import planning as planning
from _uring.records import SteadyReads
from _uring.waiters import Waiter

_T = TypeVar("_T")

ErrorKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]

class ErrorFactory(Protocol):
    """Create the exception to raise. `errno` is 0 unless `kind` is ``"errno"``. offset and limit may be None."""

    def __call__(
        self, kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
    ) -> BaseException: ...

def set_error_factory(factory: ErrorFactory, tree: tuple[type[BaseException], ...] = ...) -> None: ...

class Buffer:
    """The bytes that a read returns: one-dimensional, or a table of records. Read-only, and not copied.

    Only reads create Buffers. `Reader.read_batch` returns tables, the other methods one-dimensional Buffers.
    `rangeio.from_bytes` makes a Reader of existing bytes.

    Everything that accepts bytes-like objects accepts a Buffer, without a copy: ``memoryview(buffer)``,
    ``numpy.frombuffer(buffer, dtype)``, ``pyarrow.py_buffer``, ``torch.frombuffer``, ``zlib``, ``file.write``. Where
    `bytes` is required (``json.loads``, for example), copy with ``bytes(buffer)``. A request for writable memory is a
    BufferError; for a writable array, use ``numpy(writable=True)``.

    ``len(buffer)`` and ``buffer[i]`` count bytes. In a table they count records, and ``buffer[i]`` is one record, a
    Buffer. ``buffer[a:b]`` is a Buffer of the same memory; its step must be 1 (ValueError). ``==`` compares the bytes
    with those of any bytes-like object, and ignores shapes. `hash` is that of the same bytes.

    Slices, views and arrays share the memory of the read. It returns to the pool when the last of them is freed; the
    Reader may be closed before. A short slice keeps all of it: see `nbytes_pinned` and `compact`. `release`, or the
    end of a ``with buffer:``, frees it early. After that every access to the bytes is a ValueError.

    Threads: any number may use a Buffer at the same time, since it is read-only. `release` and
    ``numpy(writable=True)`` check for views that exist in any thread.

    Pickles as a copy of its bytes and its shape, also through a multiprocessing queue. Protocol 5 can pass the bytes
    out of band (``buffer_callback``). It is unpickled into memory of the receiving process. `copy.copy` copies the
    bytes.
    """

    @property
    def nbytes(self) -> int:
        """Total number of bytes, also of a table; 0 after `release`."""
    @property
    def nbytes_pinned(self) -> int:
        """Bytes of pool memory that this Buffer keeps allocated: the whole block of its read."""
    @property
    def shape(self) -> tuple[int, ...]:
        """``(nbytes,)``, or ``(records, bytes per record)`` for a table; ``(0,)`` after `release`."""
    @property
    def released(self) -> bool:
        """Whether `release` has freed the memory."""
    def __len__(self) -> int:
        """The number of bytes; for a table, of records."""
    @overload
    def __getitem__(self, index: slice) -> Buffer: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> int | Buffer:
        """A byte as an int, a record as a Buffer, or a slice as a Buffer. See the class."""
    def __eq__(self, other: object) -> bool:
        """Equal to any bytes-like object with the same bytes. Shapes are not compared."""
    def __hash__(self) -> int: ...
    def __bytes__(self) -> bytes:
        """As `tobytes`."""
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def tobytes(self) -> bytes:
        """A copy of the bytes; of a table, row by row. ValueError after `release`."""
    def numpy(
        self,
        dtype: npt.DTypeLike = "u1",
        shape: int | tuple[int, ...] | None = None,
        *,
        writable: bool = False,
    ) -> npt.NDArray[Any]:
        """A read-only array over the same memory.

        dtype: type of its items, including the byte order. shape: in items. The default is one dimension; for a table
        it is (records, items per record) if a record is a whole number of items. ValueError if the bytes are not a
        whole number of items or do not fill the shape, if the items are Python objects, and after `release`.

        writable: lend the memory to a writable array if there are no other views or slices. Until that array is freed,
        other access to the Buffer is a BufferError. If there are views or slices, and always with the backend
        ``python``, the array is a copy.
        """
    def compact(self) -> Buffer:
        """This Buffer if it pins little more than its own bytes (`nbytes_pinned`), else a copy that does.

        For Buffers kept for long: a slice of 100 bytes keeps the megabytes of its read. ValueError after `release`.
        """
    def release(self) -> None:
        """Free the memory now. A second call does nothing.

        BufferError while views of this Buffer exist: memoryviews or arrays. Slices are separate Buffers. They stay
        valid, and the memory is freed only when they are freed, too.
        """
    def __dlpack__(self, **kwargs: Any) -> Any:
        """For ``numpy.from_dlpack`` and the like. BufferError if the consumer does not support read-only memory."""
    def __dlpack_device__(self) -> tuple[int, int]:
        """``(1, 0)``: CPU memory."""
    def __enter__(self) -> Self:
        """Return this Buffer."""
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `release`."""

class FileStat(NamedTuple):
    """The current fstat(2) of an open file. `size` is None where the file system does not report it (/proc, /sys)."""

    size: int | None
    mtime_ns: int
    device: int
    inode: int

class File:
    """One open regular file, read by position. No cursor, no lock. Created by `Reactor.open`."""

    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def size(self) -> int | None:
        """Size in bytes when opened (now, if not pinned). None where the file system does not report it."""
    @property
    def direct(self) -> bool:
        """Whether reads use O_DIRECT."""
    @property
    def mapped(self) -> bool:
        """Whether hot batches of it may be copied out of a mapping; False once it is closed."""
    @property
    def direct_reason(self) -> str:
        """Why `direct` has its value, as text for people."""
    @property
    def alignment(self) -> int:
        """The alignment that O_DIRECT requires of offsets and lengths. 0 where O_DIRECT is not supported.

        4096 where statx(2) does not report it (before Linux 6.1, and some file systems), until `direct=True` has tried.
        """
    again: tuple[Callable[..., Any], tuple[Any, ...]] | None
    """What the file pickles as: a function and its arguments, set by its owner. None: it cannot be pickled."""
    def fileno(self) -> int: ...
    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> Buffer:
        """Read `limit` bytes from `offset`: fewer only at the end of the file, none past it. `limit` 0 does no I/O.

        ValueError for negative numbers, TypeError for non-integers, OverflowError from 2**63 on. All are raised
        before any I/O.
        """
    def read_into(self, buffer: SupportsBuffer, offset: SupportsIndex = 0) -> int:
        """Fill a writable C-contiguous buffer from `offset`. Return the bytes read: less than its size only at the end.

        TypeError if the buffer is read-only or holds Python objects or pointers, BufferError if it is not contiguous.
        Both are raised before any I/O.
        """
    def read_many(self, starts: Any, lengths: Any, concurrent: int = 0) -> list[Buffer]:
        """Return one Buffer for each (start, length), in order. Each is short only at the end of the file.

        starts, lengths: sequences of int or int64 arrays of the same size. Ranges are not merged. concurrent: maximum
        number of requests in flight; 0 lets the reactor choose.
        """
    def iter_many(
        self, starts: Any, lengths: Any, concurrent: int = 0, ordered: bool = False
    ) -> Iterator[tuple[int, Buffer]]:
        """As `read_many`, but yield each (index, Buffer) as soon as it is complete. Closing the iterator stops reading.

        ordered: yield in the given order. At most `concurrent` ranges are then in flight or complete but not yet due.
        """
    def read_many_into(
        self, destinations: Iterable[SupportsBuffer], starts: Any, concurrent: int = 0
    ) -> list[int]:
        """Fill writable C-contiguous buffers, each from its start, many at once. Return the bytes read into each.

        As `read_into` of each; none may overlap another. concurrent: as for `read_many`.
        """
    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        """Read the records of `length` bytes at `offsets` into one table of shape (len(offsets), length).

        If any record extends past the end, the call raises an ``"eof"`` error with the index of the record in `detail`.
        out: a writable C-contiguous buffer of exactly that size, which is filled and returned in place of a new Buffer.
        """
    def prefetch(self, starts: Any, lengths: Any) -> None:
        """Tell the kernel that these ranges will be read soon (POSIX_FADV_WILLNEED), by a thread; returns at once.

        Hints are passed on one after the other. What is left of them when the file is closed is dropped.
        """

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> Awaitable[Buffer]:
        """As `read_at`, to be awaited under asyncio or trio. This call checks the arguments, not the await.

        Cached bytes are read before this returns. The awaitable is then already done, or yields to the loop once if
        the task's budget for cached reads is used up. Cancelling returns at once; the read keeps its memory and its
        file until it completes.
        """
    def read_into_async(self, buffer: SupportsBuffer, offset: SupportsIndex = 0) -> Awaitable[int]:
        """As `read_into`, awaited. Cancelling starts no further I/O, and ends once no I/O writes to the buffer."""
    def read_many_async(self, starts: Any, lengths: Any, concurrent: int = 0) -> Awaitable[list[Buffer]]: ...
    def read_many_into_async(
        self, destinations: Iterable[SupportsBuffer], starts: Any, concurrent: int = 0
    ) -> Awaitable[list[int]]:
        """As `read_many_into`, awaited. Cancelling starts no further I/O, and ends once no I/O writes to the memory."""
    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        """As `read_batch`, awaited. With `out`, cancelling is as for `read_into_async`."""
    def read_cached(self, offset: int, limit: int) -> Buffer | None:
        """The range, if a task of the running loop can have it now: all of it is cached, and the task's budget is not
        used up. Else None. Errors are left to the read that waits, except that a pinned file has changed.
        """
    def begin_at(self, offset: int, limit: int, waiter: Waiter) -> None:
        """Start reading a range in the running loop. `waiter` gets the result, possibly before this returns."""
    def stat(self) -> FileStat: ...
    def close(self) -> None:
        """Refuse new reads. Reads in flight complete, and Buffers stay valid. A second call does nothing."""

class Backend(NamedTuple):
    """The mechanism that the reactor reads with. `str()` of it is the name."""

    name: Literal["uring", "pool", "python"]
    reason: str
    """Why it was chosen: the library and features found, or what refused the ring and how to fix that."""
    liburing: str
    """Path of the liburing in use; empty if none."""
    tried: tuple[tuple[str, str], ...]
    """Every liburing that was tried, with the outcome."""

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
    def open(
        self,
        path: str | bytes,
        *,
        direct: bool | Literal["auto"] = "auto",
        pin: bool = True,
        mapped: bool = True,
    ) -> File:
        """Open a regular file. A directory, FIFO or socket is refused without blocking.

        mapped: whether many reads at once may be copied out of a mapping, where that can be done (`File.mapped`).
        """
    def from_fd(
        self,
        fd: int,
        *,
        closefd: bool = False,
        direct: bool | Literal["auto"] = "auto",
        pin: bool = True,
        mapped: bool = True,
        path: str = "",
    ) -> File:
        """As `open`, for a file that is already open.

        closefd: take over `fd` and close it later. If this call raises, `fd` is not taken over.
        """
    def read_files(
        self, jobs: Sequence[tuple[str, int, int | None]], *, pin: bool = True
    ) -> list[Buffer | BaseException]:
        """Open and read many files at once, with a bounded number of them open at a time. jobs: (path, start, stop).

        `stop` None reads to the end. A job that fails has its exception in the list. pin: a file that is written to
        between its opening and the end of its read is a ``"changed"`` error; otherwise the bytes may mix both versions.
        """
    def allocate(self, shape: int | tuple[int, int]) -> Buffer:
        """A Buffer of `shape` bytes, or a table of (records, length). The memory is not initialized."""
    def writable(self, buffer: Buffer) -> memoryview:
        """A writable view of a Buffer from `allocate`, to be filled (from a socket, for example).

        BufferError once its bytes have been accessed, and for a Buffer that a read has returned: those are final.
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
        measured: Callable[[tuple[float, float, int]], object],
    ) -> SteadyReads | None:
        """Reads of the object that `request` names, over `idle` connections. None with backend ``python``.

        give_back: called with a connection that others wait for. most: maximum bytes of a range. absolute: whether the
        connections need the whole URL in the request. good_s: seconds that the request stays valid. timeout: seconds of
        silence after which a read is handed over, and seconds in total. asked, answered: called for each request and
        response. measured: called for each large response with one tuple: the seconds until its head, the seconds from
        there to its end, and its size in bytes.
        """
    def count(self, asked: int, fetched: int) -> None:
        """Count a read that was made outside of the core, in its memory: see `stats`."""
    def stats(self) -> dict[str, int]:
        """Counters since the start: reads, bytes_asked, bytes_fetched, inline_hits, mapped_reads, ring_enters,
        ring_reads, pool_reads, fallbacks; of the process: file_bytes_mapped (may be resident now) and mapped_drops.
        Current values: buffers_live, bytes_live, bytes_pooled, bytes_mapped, files_open (a file counts until its last
        read has ended), in_flight."""
    def close(self) -> None: ...

def ready(value: _T, nbytes: int = 0) -> Awaitable[_T]:
    """An awaitable of an available value. nbytes: its size.

    Awaiting it does not suspend the task. But after 64 of them, or 4 MiB, it yields to the loop once, so that other
    tasks run and cancellations arrive. Cached reads count towards the same budget.
    """

def refused(error: BaseException) -> Awaitable[Any]:
    """An awaitable that raises `error`, and counts as `ready` does.

    Only for errors that the error factory makes. Others (RuntimeError, where no loop runs) are raised by this call.
    """

def yield_if_due() -> Awaitable[None]:
    """``ready(None)``: for the start of a coroutine that may return without suspending."""

def default_reactor() -> Reactor:
    """The process's reactor, created on first use (backend from RANGEIO_BACKEND). A forked child keeps using it."""

def extension_error() -> str:
    """Why the compiled extension is not available; empty if it is."""

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
        """Whether it is open and no bytes have arrived. Not available with backend ``python``."""

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

class LoopTransfers:
    """Reads of steady states on one event loop: what the loop calls. None with backend ``python``."""

    def __init__(self, key: object, /) -> None:
        """key: what `current_key` gives for the loop."""
    def __len__(self) -> int:
        """How many reads are under way."""
    def poll(self) -> None:
        """Take what has come."""
    def look(self, due_ns: int, /) -> None:
        """Hand over what is late, if the look that is due then was not put forward."""
    def end(self) -> None:
        """The loop watches no longer."""
    @property
    def ended(self) -> bool: ...

async def awaited(
    steady: SteadyReads,
    start: int,
    count: int,
    into: memoryview | None,
    reader: records.Reader,
    again: bool,
) -> Any:
    """The result of a read: a Buffer, or the bytes read into memory. Not there with backend ``python``.

    Where it cannot be begun in the core, what `reader.read_soon` gives if it is to be tried again, else None.
    """

def awaited_at(
    steady: SteadyReads, offset: object, limit: object, reader: records.Reader, /
) -> Awaitable[Any] | None:
    """The same of a `read_at`, tried again; None at once if it cannot be begun. Not there with backend ``python``."""

def begin_awaited(
    steady: SteadyReads, start: int, count: int, waiter: Waiter, reader: records.Reader, /
) -> bool:
    """Begin a read of which `waiter` is told; whether that could be done. Not there with backend ``python``."""
