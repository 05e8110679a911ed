"""What is told to observers and logged of reads over HTTP. No text of a server, which could quote a secret."""

from rangeio.errors import Error, ObjectChangedError
from rangeio.events import LISTENERS, Event, since, tell
from rangeio.http.range_read import RangeRead
from rangeio.logs import log
from rangeio.ranges import OPEN


def told_request(read: RangeRead, at: int, stop: int, attempts: int) -> None:
    """A request was made."""
    is_range = read.offset is not None
    nbytes = stop - at if is_range and stop != OPEN else None
    tell(Event("request", read.remote.shown, at if is_range else None, nbytes, attempts=attempts))


def told_response(read: RangeRead, status: int, seconds: float) -> None:
    """The head of a response has arrived."""
    tell(Event("response", read.remote.shown, read.offset, seconds=seconds, status=status))


def told_retry(read: RangeRead, error: Error, pause_s: float, attempts: int) -> None:
    """A request is made again."""
    shown, kind = read.remote.shown, type(error).__name__
    log("rangeio.http", "info", "%s: %s, attempt %d follows in %.3f s", shown, kind, attempts, pause_s)
    if LISTENERS:
        tell(
            Event(
                "retry",
                shown,
                read.offset,
                seconds=pause_s,
                attempts=attempts,
                status=error.http_status,
                error=kind,
            )
        )


def told_hedge(read: RangeRead, seconds: float) -> None:
    """A request is made a second time, because there was no response for so long."""
    shown = read.remote.shown
    log(
        "rangeio.http",
        "info",
        "%s: no response for %.3f s, the request is sent a second time",
        shown,
        seconds,
    )
    if LISTENERS:
        tell(Event("hedge", shown, read.offset, seconds=seconds))


def told_failure(read: RangeRead, error: Error) -> None:
    """A range, or what else was asked for, could not be read."""
    kind = type(error).__name__
    if isinstance(error, ObjectChangedError):
        log("rangeio.http", "warning", "%s: the object changed after it was opened", read.remote.shown)
    if LISTENERS:
        took_s, attempts = since(read.began), max(1, error.attempts)
        status = error.http_status
        tell(
            Event(
                "read",
                read.remote.shown,
                read.offset,
                0,
                1,
                seconds=took_s,
                attempts=attempts,
                status=status,
                error=kind,
            )
        )
