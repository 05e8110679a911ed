"""rangeio reads byte ranges: one stateless call, over local files and object stores, into memory the reactor owns.

    with rangeio.open("data/model.bin") as r:
        buf = r.read_at(4096, 65536)
        bufs = r.read_ranges([(0, 100), (8192, 12288)])
        table = r.read_batch(offsets, 256)

`Reader` and `Operator` hold the documentation of the calls, `rangeio.errors` that of what they raise.
"""

from typing import TYPE_CHECKING

import _uring
from _uring import Backend, Buffer, Reactor
from rangeio.async_reader import AsyncReader
from rangeio.budget import SHARED as _budget
from rangeio.counters import stats as _traffic
from rangeio.errors import (
    ClosedError,
    ConditionNotMatchError,
    ConfigInvalidError,
    ConnectionFailedError,
    ContentEncodedError,
    Error,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    NotModifiedError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotSatisfiedError,
    RangeNotSupportedError,
    RateLimitedError,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
    UnexpectedEofError,
    UnexpectedError,
    UnsupportedError,
    from_native,
)
from rangeio.operator import (
    Operator,
    from_bytes,
    from_bytes_async,
    from_fd,
    from_fd_async,
    open,
    open_async,
)
from rangeio.policy import RETRIES as _retries
from rangeio.policy import Retry, Timeout
from rangeio.ranges import Plan, Suffix
from rangeio.reader import Reader
from rangeio.service import Capability, Options, Stat

__all__ = [
    "open",
    "open_async",
    "from_bytes",
    "from_fd",
    "from_bytes_async",
    "from_fd_async",
    "Operator",
    "Reader",
    "AsyncReader",
    "Buffer",
    "Suffix",
    "Plan",
    "Stat",
    "Capability",
    "Options",
    "Timeout",
    "Retry",
    "Reactor",
    "Backend",
    "backend",
    "stats",
    "set_budget",
    "Error",
    "NotFoundError",
    "PermissionDeniedError",
    "UnauthenticatedError",
    "IsDirectoryError",
    "NotDirectoryError",
    "ConditionNotMatchError",
    "NotModifiedError",
    "ObjectChangedError",
    "RangeNotSatisfiedError",
    "RangeNotSupportedError",
    "ContentEncodedError",
    "UnexpectedEofError",
    "UnsupportedError",
    "ConfigInvalidError",
    "RateLimitedError",
    "TimedOutError",
    "ConnectionFailedError",
    "ServerError",
    "ClosedError",
    "UnexpectedError",
    "__version__",
]

_uring.set_error_factory(from_native, (Error,))

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """The version, looked up when asked for: importing importlib.metadata takes longer than all of rangeio."""
        if name != "__version__":
            raise AttributeError(f"module 'rangeio' has no attribute {name!r}")
        from importlib import metadata

        try:
            return metadata.version("rangeio")
        except metadata.PackageNotFoundError:  # a source tree on the path, not installed
            return "0+unknown"


def __dir__() -> list[str]:
    """The public names, and not those of the modules that are imported by them."""
    return sorted(__all__)


def backend() -> Backend:
    """What the process's reactor reads with: ``uring``, ``pool`` or ``python``, and why."""
    return _uring.default_reactor().backend


def stats() -> dict[str, int]:
    """Counters of the process's reactor: reads, bytes asked and fetched, Buffers live and pooled, reads in flight;
    and of the budget (see `set_budget`): budget_bytes, budget_in_use, budget_waits; and
    of what went over networks: requests and connections; retries, retries_refused, retry_tokens, hedges, hedges_won
    (see `Options.hedge`).
    """
    return {**_uring.default_reactor().stats(), **_budget.stats(), **_traffic(), **_retries.stats()}


def set_budget(nbytes: int) -> None:
    """Most bytes that this process should have in flight (default an eighth of the machine's memory, at most 2 GiB).

    Calls of `read_ranges` that together would exceed it wait for each other, and streams read less ahead. One read
    larger than it is let through alone. Small reads, below 1 MiB in all, are not counted. ValueError if negative.
    """
    _budget.resize(nbytes)
