"""What rangeio needs of somebody else's object: one positioned read, and what the object is."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Info:
    """What a store reports of one object.

    size: in bytes, None if only reading tells. pin: what differs between two versions, besides the size; empty if
    nothing does. pinned_by: the names of these parts, for display.
    """

    size: int | None
    pin: tuple[object, ...] = ()
    pinned_by: str = ""
    mtime_ns: int | None = None
    etag: str | None = None
    version: str | None = None

    def is_same(self, other: "Info") -> bool:
        """Whether both are of the same version of the object."""
        return (self.size, self.pin) == (other.size, other.pin)


class Told(NamedTuple):
    """The bytes of one read, and the object they were read from."""

    data: Any
    info: Info


class Store(Protocol):
    """One object of another library. Any thread may call it, several at once.

    path: for display, without credentials. tells: every read returns a `Told`, so the size and the version are known
    without a call of `info`. alone: it makes one call at a time, so more at once are of no use. forked: why a forked
    child cannot use it; empty if it can. call_s: seconds that one call may take; None for no limit. When they have
    passed, rangeio waits no longer; the call keeps its thread, and counts as in progress, until it returns.
    """

    path: str
    backend: str
    tells: bool = False
    alone: bool = False
    forked: str = ""
    call_s: float | None = None

    def pread(self, offset: int, n: int, known: Info | None) -> Any:
        """Read `n` bytes from `offset`; an object with the buffer protocol, or a `Told`. Blocks.

        Fewer bytes are completed by further calls; none means that the object ends here. known: the version that must
        be read, if the object is pinned; a store that can check it with the read does so. Any exception is mapped.
        """
        raise NotImplementedError

    def info(self) -> Info:
        """What the object is now, asked anew. Blocks."""
        raise NotImplementedError

    def can_await(self) -> bool:
        """Whether `pread_async` can be awaited on the running asyncio loop."""
        return False

    def pread_async(self, offset: int, n: int, known: Info | None) -> Awaitable[Any] | None:
        """Like `pread`, awaited on the running asyncio loop. None: a thread calls `pread`."""
        return None

    def info_async(self) -> Awaitable[Info] | None:
        """Like `info`, awaited on the running asyncio loop. None: a thread calls `info`."""
        return None

    def failed(self, error: BaseException) -> str | None:
        """The name of a class of `rangeio.errors` for an exception of the store; None for the general rules."""
        return None
