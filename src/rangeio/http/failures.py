"""What went wrong with a request, as the error that the caller of a read sees. No URL in it has a query or a login."""

import re
import signal
import ssl
import threading
from typing import Any, Literal

from rangeio.errors import (
    ConnectionFailedError,
    Error,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
    UnexpectedError,
    asked,
)
from rangeio.http.exchange import Cut, Exchange
from rangeio.http.heads import BadReply, Head
from rangeio.http.reads import Probe, Read
from rangeio.http.rules import request_id, status_class
from rangeio.ranges import OPEN


def too_slow(connect_s: float | None) -> Error:
    """Of opening a connection."""
    return TimedOutError(f"no connection within connect_s={connect_s or 0:g}")


def connecting_failed(error: BaseException, connect_s: float | None) -> Error:
    """Why no connection could be opened. Certificates do not become right by trying again."""
    if isinstance(error, Error):
        return error
    import urllib3.exceptions as reasons  # after that: one of them says that urllib3 is missing

    text = (str(error).partition(": ")[2] or str(error)).removeprefix(
        "Failed to establish a new connection: "
    )
    unreachable = isinstance(error, reasons.NewConnectionError)  # which also is a ConnectTimeoutError
    if isinstance(error, (reasons.ConnectTimeoutError, TimeoutError)) and not unreachable:
        return too_slow(connect_s)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(error):
        return ConnectionFailedError(f"the server's certificate is not trusted: {error}", status="permanent")
    tunnel = _TUNNEL.search(str(error))
    if tunnel is not None:
        return _tunnel_failed(int(tunnel[1]))
    return ConnectionFailedError(f"no connection: {text}")


# How http.client tells that a proxy does not do CONNECT; there is no other way to know the status.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def _tunnel_failed(status: int) -> Error:
    if status == 407:
        kind, said = status_class(status, pinned=False)
        return kind(f"HTTP {status}: {said}", http_status=status)
    certain: Literal["permanent", "temporary"] = "temporary" if status >= 500 else "permanent"
    return ConnectionFailedError(f"the proxy refuses with HTTP {status}", http_status=status, status=certain)


def breaking_failed(error: BaseException, exchange: Exchange) -> Error:
    """Why a reply did not come to its end."""
    if isinstance(error, BadReply):
        return ServerError(f"the server's reply cannot be understood: {error}")
    if isinstance(error, Cut):
        came = "in the middle of its reply" if exchange.started else "without a reply"
        return ConnectionFailedError(f"the server closed the connection {came}")
    return ConnectionFailedError(f"the connection broke: {error}")


def credentials_failed(error: BaseException) -> Error:
    """What a callable of the caller's raised. Its own errors of the tree pass."""
    return (
        error if isinstance(error, Error) else _made_of(UnauthenticatedError, "credentials() failed", error)
    )


def defect(error: BaseException) -> Error:
    """An exception that nothing here expects: the read ends with it, rather than never."""
    said = "reading it failed in a way that is a defect of rangeio"
    return error if isinstance(error, Error) else _made_of(UnexpectedError, said, error)


def _made_of(kind: type[Error], said: str, error: BaseException) -> Error:
    """The text of `error` is in its traceback only: it may quote what was sent."""
    made = kind(f"{said}: {type(error).__name__}")
    made.__cause__ = error
    return made


def is_of_signal_handler(error: BaseException) -> bool:
    """Whether a handler of a signal raised it amid code of ours, by which a program may end a call. It is the
    program's, whatever its class.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # handlers run in no other: signal(7) of Python's library
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code in handlers:
            return True
        frame = frame.tb_next
    return False


def _code_of(handler: Any) -> Any:
    handler = getattr(handler, "func", handler)  # functools.partial
    called = type(handler).__call__ if callable(handler) else None
    for found in (handler, getattr(handler, "__func__", None), called):
        code = getattr(found, "__code__", None)
        if code is not None:
            return code
    return None


def as_error(read: Read, error: Error, attempts: int, head: Head | None = None) -> Error:
    """The error as the caller of a read sees it: with what was asked for, and where."""
    if error.path and read.index == error.index:
        return error
    said, advice = error.context.get("said", str(error)), error.context.get("advice", "")
    offset = read.start if read.remote.by_bytes and not isinstance(read, Probe) else None
    limit = None if offset is None or read.stop == OPEN else read.stop - read.start
    shown = read.remote.shown
    status = error.http_status if error.http_status is not None else head.status if head is not None else None
    known = error.request_id or (request_id(head) if head is not None else None)
    found = type(error)(
        f"{asked(shown, offset, limit)}: {said}{_tries(attempts, known)}" + (advice and f"; {advice}"),
        path=shown,
        offset=offset,
        limit=limit,
        status=error.status,
        attempts=max(1, attempts),
        http_status=status,
        request_id=known,
        index=max(0, read.index),
        context={"said": said, "advice": advice},
    )
    found.__cause__ = error.__cause__
    return found


def _tries(attempts: int, known: str | None) -> str:
    """How often it was tried, and by what the server's people find the last request."""
    parts = [f"{attempts} attempts"] if attempts > 1 else []
    parts += [f"request {known}"] if known else []
    return f" ({', '.join(parts)})" if parts else ""
