"""How what belongs to one process is restored in another, or refuses to go there."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

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


def unpicklable(path: str) -> TypeError:
    """What is raised by all that is made of a file that cannot be opened in another process."""
    return TypeError(
        f"cannot pickle what reads {path!r}: a descriptor means nothing in another process; open the file by path there"
    )
