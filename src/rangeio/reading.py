"""The methods that a Reader takes over from what it reads: their signatures and documentation, written once.

`Reader.read_at` is the bound method of the native file itself, kept in a slot, since a call between the two would cost
as much as a tenth of a read. The classes here are what people, editors and type checkers see of those slots.
"""

from collections.abc import Awaitable, Callable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer

# Before Python 3.12 numpy's stubs do not say that an array is a buffer.
Destination: TypeAlias = "SupportsBuffer | npt.NDArray[Any]"

_CALLS = {
    "read_at": "read_at(offset, limit) -> Buffer",
    "read_into": "read_into(buffer, offset=0) -> int",
    "read_batch": "read_batch(offsets, length) -> Buffer",
}
HANDED_OUT = tuple(_CALLS)
"""The names of the slots."""


def documents(methods: type, prefix: str = "") -> dict[str, str]:
    """What `__slots__` says of each slot: how it is called, since nobody can ask a slot for that, and what it does."""
    return {
        name: f"{prefix}{call}\n\n{cleandoc(getattr(methods, name).__doc__ or '')}"
        for name, call in _CALLS.items()
    }


def setters(owner: type) -> list[Callable[[Any, object], None]]:
    """What fills the slots of an `owner`, in the order of `HANDED_OUT`; also while the class shows something else."""
    return [vars(owner)[name].__set__ for name in HANDED_OUT]


class Reads:
    """How a Reader reads one range."""

    __slots__ = ()

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        """`limit` bytes from `offset`; fewer only at the end of the object, none at or past it. `limit` 0 does no I/O.

        ValueError for negative numbers, TypeError for anything but integers, OverflowError from 2**63 on, all before
        any I/O. Cost: one request, or one per `chunk` bytes. Of a local file this is the method of the native core
        itself. Source: pread(2); OpenDAL RFC-4382, RFC-7660.
        """
        raise NotImplementedError

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        """Fill a writable C-contiguous buffer from `offset`; the bytes read, fewer than its size only at the end.

        TypeError if it is read-only or holds Python objects or pointers, BufferError if it is not contiguous, before
        any I/O. An exception of a signal handler (Ctrl-C) comes when the kernel is done with the buffer.
        """
        raise NotImplementedError

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Buffer":
        """The records of `length` bytes at `offsets` as one table: np.asarray(result).shape == (len(offsets), length).

        offsets: integers or an int64 array, in any order. UnexpectedEofError if a record would pass the end. Nothing is
        merged; use `read_ranges` where records lie close together.
        """
        raise NotImplementedError


class AwaitedReads:
    """How an AsyncReader reads one range. Arguments are checked by the call, not by the await."""

    __slots__ = ()

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """`limit` bytes from `offset`, awaited; fewer only at the end of the object. See `Reader.read_at`.

        From the second call on this is, of a local file, the method of the native core itself: what the page cache has
        costs as much as a blocking os.pread would.
        """
        raise NotImplementedError

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """Fill a writable C-contiguous buffer from `offset`; the bytes read, awaited. See `Reader.read_into`.

        Once the await has ended, nothing writes to the buffer any more: a cancellation begins no more reads, and ends
        when the kernel is done with those it has, some megabytes at most, which takes as long as the device takes to
        answer. To leave at once, whatever the device does, read by `read_at`. After a cancellation the content
        of the buffer is undefined.

        That is said of the await of each. `asyncio.gather` that is cancelled ends with the first of its reads, while
        others are written to: use a TaskGroup (or a nursery), or await each of them, before the memory is used again.
        """
        raise NotImplementedError

    def read_batch(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        """The records of `length` bytes at `offsets` as one table, awaited. See `Reader.read_batch`."""
        raise NotImplementedError


class SourceReads(Reads):
    """Both, as a Source has them. A method without documentation of its own shows this one's in `help`."""

    __slots__ = ()

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """As `read_at`, to be awaited. Arguments are checked by the call, not by the await."""
        raise NotImplementedError

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """As `read_into`, to be awaited. Once the await has ended, nothing writes to the buffer any more."""
        raise NotImplementedError

    def read_batch_async(self, offsets: Any, length: SupportsIndex) -> "Awaitable[Buffer]":
        """As `read_batch`, to be awaited."""
        raise NotImplementedError
