"""Pickling: restores Buffers in another process, and refuses objects that cannot be restored."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

_default_reactor: Callable[[], Any]


def set_default_reactor(reactor: Callable[[], Any]) -> None:
    """Set the function that returns the reactor whose memory unpickled Buffers use."""
    global _default_reactor
    _default_reactor = reactor


def restored_buffer(data: "SupportsBuffer", shape: tuple[int, ...]) -> Any:
    """A Buffer of this process, with bytes from a pickle or its out-of-band buffers."""
    reactor = _default_reactor()
    buffer = reactor.allocate(shape if len(shape) == 2 else shape[0])
    reactor.writable(buffer)[:] = memoryview(data).cast("B")
    return buffer


def unpicklable(path: str) -> TypeError:
    """The error for objects that use a file which cannot be reopened in another process."""
    return TypeError(
        f"cannot pickle a reader of {path!r}: a descriptor is invalid in another process; open the file by path there"
    )
