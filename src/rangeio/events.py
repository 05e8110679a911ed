"""What rangeio does, for observers: one list of callables. Where nobody listens, each place looks at that list only."""

import threading
import time
import traceback
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rangeio.logs import log

Kind: TypeAlias = Literal["request", "response", "retry", "hedge", "read", "ranges"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Contains no secret: `path` is the path or URI without login and query.

    kind: ``"request"``: it was sent, for `nbytes` bytes from `offset` on (None: not for a range, or open-ended).
    ``"response"``: its head arrived, with `status`, `seconds` after the request. ``"retry"``: a request failed with
    `error` and is sent again in `seconds`, as attempt `attempts`. ``"hedge"``: a silent one is sent a second time.
    ``"read"``: one range over HTTP is complete, or failed with `error`; bytes, seconds since it began, attempts.
    ``"ranges"``: a `read_ranges` of one object of any service is complete; `ranges`, the bytes fetched, `requests`,
    seconds. Of files, memory and other libraries' objects nothing else is told.
    """

    kind: Kind
    path: str
    offset: int | None = None
    nbytes: int | None = None
    ranges: int | None = None
    requests: int | None = None
    seconds: float | None = None
    attempts: int | None = None
    status: int | None = None
    error: str | None = None


Listener: TypeAlias = Callable[[Event], object]

LISTENERS: list[Listener] = []
"""Who listens. Empty: nothing is measured or made for events."""
_changing = threading.Lock()


def on_event(listener: Listener) -> Callable[[], None]:
    """Call `listener` with each `Event` of this process, on the thread where it happens, until the returned function is
    called.

    It must be quick, and must not read with rangeio. Its exceptions are logged (``rangeio``), and change nothing.
    Reads that are in flight, and for half a second those of objects that are open, may be missing. While somebody
    listens, reads over HTTP are made in Python, which costs more than the core.
    """
    if not callable(listener):
        raise TypeError(f"a listener is a callable, not {type(listener).__name__}")
    with _changing:
        LISTENERS.append(listener)

    def stop() -> None:
        with _changing:
            if listener in LISTENERS:
                LISTENERS.remove(listener)

    return stop


def tell(event: Event) -> None:
    """Tell all who listen."""
    for listener in tuple(LISTENERS):
        try:
            listener(event)
        except Exception as error:
            # As text: a record that is kept would hold the frames, and with them the memory of the read.
            said = "".join(traceback.format_exception(error))
            log("rangeio", "error", "a listener of rangeio.on_event failed: %s", said)


def begun() -> float:
    """The time now, if somebody wants to know how long something takes."""
    return time.monotonic() if LISTENERS else 0.0


def since(began: float) -> float | None:
    """The seconds since `begun`; None if nobody listened then."""
    return time.monotonic() - began if began else None


def told_ranges(path: str, ranges: int, requests: int, nbytes: int, began: float) -> None:
    """Many ranges were read, by so many requests, of so many bytes in all."""
    tell(Event("ranges", path, None, nbytes, ranges, requests, since(began)))


def told_responses(path: str, results: Sequence[Sized], responses: Sequence[Sized], began: float) -> None:
    """Many ranges were read. Of their requests that were merged from them, all bytes count."""
    told_ranges(path, len(results), len(responses), sum(map(len, responses)), began)
