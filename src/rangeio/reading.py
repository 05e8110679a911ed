"""Signatures and documentation of the methods that a Reader takes over from its Source.

`Reader.read_at` is the bound method of the native file itself, stored in a slot, because a call in between would cost a
tenth of a read. The classes here define what users, editors and type checkers see of those slots.
"""

from collections.abc import Awaitable, Callable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer as SupportsBuffer

    from _uring import Buffer

# Before Python 3.12, numpy's stubs do not declare an array as a buffer.
Destination: TypeAlias = "SupportsBuffer | npt.NDArray[Any]"
_Out = TypeVar("_Out", bound="Destination")

_CALLS = {
    "read_at": "read_at(offset, limit) -> Buffer",
    "read_into": "read_into(buffer, offset=0) -> int",
    "read_batch": "read_batch(offsets, length, out=None) -> Buffer",
}
HANDED_OUT = tuple(_CALLS)
"""The names of the slots."""


def documents(methods: type, prefix: str = "") -> dict[str, str]:
    """The docstrings for `__slots__`: the signature, which `inspect` cannot read from a slot, and the documentation."""
    return {
        name: f"{prefix}{call}\n\n{cleandoc(getattr(methods, name).__doc__ or '')}"
        for name, call in _CALLS.items()
    }


def setters(owner: type) -> list[Callable[[Any, object], None]]:
    """The functions that set the slots of an `owner`, in the order of `HANDED_OUT`. They work even if the class
    attribute is replaced.
    """
    return [vars(owner)[name].__set__ for name in HANDED_OUT]


class Reads:
    """The read methods of a Reader."""

    __slots__ = ()

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Buffer":
        """Read `limit` bytes from `offset`; fewer if the object ends before, none at or past its end.

        A `limit` of 0 does no I/O. ValueError for negative numbers, TypeError for anything but integers, OverflowError
        from 2**63 on, all before any I/O. Cost: one request, or one per `chunk` bytes. For a local file this is the
        method of the native core itself. Source: pread(2); OpenDAL RFC-4382, RFC-7660.
        """
        raise NotImplementedError

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> int:
        """Fill a writable C-contiguous buffer from `offset`. Returns the bytes read, fewer only at the end.

        TypeError if it is read-only or holds Python objects or pointers, BufferError if it is not contiguous, before
        any I/O. An exception of a signal handler (Ctrl-C) is raised once the kernel no longer uses the buffer.
        """
        raise NotImplementedError

    @overload
    def read_batch(self, offsets: Any, length: SupportsIndex, out: None = None) -> "Buffer": ...
    @overload
    def read_batch(self, offsets: Any, length: SupportsIndex, out: _Out) -> _Out: ...
    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        """Read records of `length` bytes at `offsets`: np.asarray(result).shape == (len(offsets), length).

        offsets: integers or an int64 array, in any order. UnexpectedEofError if a record extends past the end. Over
        a network records that follow each other, in this order and in the object, are one request; nothing else is
        merged: use `read_ranges` if records are near each other.

        out: memory of the caller, as for `read_into`, of len(offsets) * length bytes, else ValueError. It is filled and
        returned. After an error its content is undefined, and nothing writes to it any more.
        """
        raise NotImplementedError


class AwaitedReads:
    """The read methods of an AsyncReader. The call checks the arguments, not the await."""

    __slots__ = ()

    def read_at(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """Read `limit` bytes from `offset`; fewer only at the end of the object. See `Reader.read_at`.

        From the second call on, for a local file, this is the method of the native core itself: a read from the page
        cache costs as much as a blocking os.pread.
        """
        raise NotImplementedError

    def read_into(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """Fill a writable C-contiguous buffer from `offset`. Returns the bytes read. See `Reader.read_into`.

        When the await ends, nothing writes to the buffer any more. A cancellation starts no more reads and ends when
        the kernel has completed the reads in flight: a few megabytes at most, which takes as long as the device needs.
        To return at once on cancellation, use `read_at`. After a cancellation the content of the buffer is undefined.

        This holds for each await. A cancelled `asyncio.gather` ends with the first of its reads, while others still
        write to their buffers: use a TaskGroup (or a nursery), or await each read, before you reuse the memory.
        """
        raise NotImplementedError

    @overload
    def read_batch(self, offsets: Any, length: SupportsIndex, out: None = None) -> "Awaitable[Buffer]": ...
    @overload
    def read_batch(self, offsets: Any, length: SupportsIndex, out: _Out) -> Awaitable[_Out]: ...
    def read_batch(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Any:
        """Read records of `length` bytes at `offsets` as one table. See `Reader.read_batch`.

        With `out`, a cancellation is as for `read_into`.
        """
        raise NotImplementedError


class SourceReads(Reads):
    """The sync and async read methods of a Source. `help` shows these docstrings for methods without their own."""

    __slots__ = ()

    def read_at_async(self, offset: SupportsIndex, limit: SupportsIndex) -> "Awaitable[Buffer]":
        """Like `read_at`, awaited. The call checks the arguments, not the await."""
        raise NotImplementedError

    def read_into_async(self, buffer: Destination, offset: SupportsIndex = 0) -> Awaitable[int]:
        """Like `read_into`, awaited. When the await ends, nothing writes to the buffer any more."""
        raise NotImplementedError

    def read_batch_async(self, offsets: Any, length: SupportsIndex, out: Any = None) -> Awaitable[Any]:
        """Like `read_batch`, awaited."""
        raise NotImplementedError
