"""rangeio reads byte ranges of local files, and of objects in stores and on servers, with stateless calls, into memory
that the reactor owns.

    with rangeio.open("data/model.bin") as r:
        buf = r.read_at(4096, 65536)
        bufs = r.read_ranges([(0, 100), (8192, 12288)])
        table = r.read_batch(offsets, 256)

See `Reader` and `Operator` for the documentation of the calls, `rangeio.errors` for the errors.
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
from rangeio.events import Event, on_event
from rangeio.from_here import from_bytes, from_bytes_async, from_fd, from_fd_async
from rangeio.from_stores import (
    from_fsspec,
    from_fsspec_async,
    from_object,
    from_object_async,
    from_obstore,
    from_obstore_async,
    from_pyarrow,
    from_pyarrow_async,
)
from rangeio.notebook import Stats as _Stats
from rangeio.operator import Operator, open, open_async
from rangeio.options import Options
from rangeio.policy import RETRIES as _retries
from rangeio.policy import Retry, Timeout
from rangeio.ranges import Plan, Suffix
from rangeio.reader import Reader
from rangeio.service import Capability, Stat

__all__ = [
    "open",
    "open_async",
    "from_bytes",
    "from_fd",
    "from_bytes_async",
    "from_fd_async",
    "from_fsspec",
    "from_fsspec_async",
    "from_obstore",
    "from_obstore_async",
    "from_pyarrow",
    "from_pyarrow_async",
    "from_object",
    "from_object_async",
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
    "on_event",
    "Event",
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
        """The version, looked up on access: importing importlib.metadata takes longer than importing rangeio."""
        if name != "__version__":
            raise AttributeError(f"module 'rangeio' has no attribute {name!r}")
        from importlib import metadata

        try:
            return metadata.version("rangeio")
        except metadata.PackageNotFoundError:  # a source tree in sys.path, not installed
            return "0+unknown"


def __dir__() -> list[str]:
    """The public names only, without the modules they import."""
    return sorted(__all__)


def backend() -> Backend:
    """The backend of the process's reactor, ``uring``, ``pool`` or ``python``, and the reason for the choice."""
    return _uring.default_reactor().backend


def stats() -> dict[str, int]:
    """Counters of this process.

    Of its reactor: reads of files and over networks, bytes_asked and bytes_fetched, Buffers live and pooled, reads in
    flight. Of the budget (see `set_budget`): budget_bytes, budget_in_use, budget_waits. Of network traffic: requests,
    connections, retries, retries_refused, retry_tokens, hedges, hedges_won (see `Options.hedge`).
    """
    own = _uring.default_reactor().stats()
    return _Stats("rangeio.stats()", own, _budget.stats(), _traffic(), _retries.stats())


def set_budget(nbytes: int) -> None:
    """Limit the bytes this process has in flight (default: an eighth of the machine's memory, at most 2 GiB).

    Calls of `read_ranges` that together would exceed the limit wait for each other, and streams read less ahead. A
    single read larger than the limit runs alone. Calls of less than 1 MiB in total are not counted. ValueError if
    negative.
    """
    _budget.resize(nbytes)
