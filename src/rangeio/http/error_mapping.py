"""Maps failures of requests to the errors that the caller of a read sees. Removes secrets from all messages."""

import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from errno import EMFILE, ENFILE
from typing import Any, Literal, TypeVar

from rangeio.errors import (
    ConnectionFailedError,
    Error,
    PermissionDeniedError,
    ServerError,
    TimedOutError,
    UnauthenticatedError,
    UnexpectedError,
    asked,
    from_native,
)
from rangeio.http.heads import BadResponse, Head
from rangeio.http.observed import told_failure
from rangeio.http.range_read import RangeRead
from rangeio.http.redaction import Quoted, hidden, without_secrets
from rangeio.http.response_parser import ConnectionEnded, ResponseParser
from rangeio.http.validation import request_id, status_class
from rangeio.ranges import OPEN

_T = TypeVar("_T")


def too_slow(connect_s: float | None) -> Error:
    """The error for a connection that took too long to open."""
    return TimedOutError(f"no connection within connect_s={connect_s or 0:g}")


def connecting_failed(error: BaseException, connect_s: float | None) -> Error:
    """The error for a connection that could not be opened."""
    if isinstance(error, Error):
        return error
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):  # the resolver does not report why it could not open its files
            cause = _refused_descriptor() or cause
        if isinstance(cause, OSError) and cause.errno in (EMFILE, ENFILE):
            return _no_descriptor(cause)
        if isinstance(cause, ssl.SSLError):
            return _tls_failed(cause)
    import urllib3.exceptions as reasons  # imported here: one of the errors above is that urllib3 is missing

    text = (str(error).partition(": ")[2] or str(error)).removeprefix(
        "Failed to establish a new connection: "
    )
    unreachable = isinstance(error, reasons.NewConnectionError)  # a subclass of ConnectTimeoutError
    if isinstance(error, (reasons.ConnectTimeoutError, TimeoutError)) and not unreachable:
        return too_slow(connect_s)
    tunnel = _TUNNEL.search(str(error))
    if tunnel is not None:
        return _tunnel_failed(int(tunnel[1]))
    return ConnectionFailedError("no connection: " + Quoted(text))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes: urllib3 wraps the errors of the system in its own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _no_descriptor(error: OSError) -> Error:
    made = from_native("errno", error.errno or 0, "", None, None, "no connection could be opened")
    assert isinstance(made, Error)
    return made


def _refused_descriptor() -> OSError | None:
    """The error of opening a descriptor now; None if one is available."""
    try:
        socket.socket().close()
    except OSError as error:
        return error
    return None


# TLS alerts of the server (RFC 8446, section 6) that may concern only this connection: it received corrupted data, or
# it failed internally. All other alerts concern the configuration of the two sides, which does not change.
_PASSING_ALERTS = (
    "BAD_RECORD_MAC",
    "CLOSE_NOTIFY",
    "DECODE",
    "DECRYPT",
    "INTERNAL_ERROR",
    "RECORD_OVERFLOW",
    "UNEXPECTED_MESSAGE",
    "USER_CANCEL",
)
# Errors of OpenSSL itself (sslerr.h) that do not change either.
_LASTING = frozenset(
    [
        "CA_KEY_TOO_SMALL",
        "CA_MD_TOO_WEAK",
        "CERTIFICATE_VERIFY_FAILED",
        "DH_KEY_TOO_SMALL",
        "EE_KEY_TOO_SMALL",
        "HTTPS_PROXY_REQUEST",
        "HTTP_REQUEST",
        "NO_CIPHERS_AVAILABLE",
        "NO_PROTOCOLS_AVAILABLE",
        "TLSV1_UNRECOGNIZED_NAME",
        "TLSV1_UNSUPPORTED_EXTENSION",
        "UNKNOWN_PROTOCOL",
        "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_CIPHER_RETURNED",
        "WRONG_SIGNATURE_TYPE",
        "WRONG_SSL_VERSION",
        "WRONG_VERSION_NUMBER",
    ]
)


def _tls_failed(error: ssl.SSLError) -> Error:
    """The error for a TLS failure. A failed negotiation is permanent, because a retry would fail the same way; an
    interrupted handshake is not.
    """
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError) or reason == "CERTIFICATE_VERIFY_FAILED":
        return ConnectionFailedError(
            "the server's certificate is not trusted: " + Quoted(error), status="permanent"
        )
    _, alert, said = reason.partition("_ALERT_")
    lasting = not said.startswith(_PASSING_ALERTS) if alert else reason in _LASTING
    if not lasting:
        return ConnectionFailedError("TLS failed: " + Quoted(error))
    said = f"TLS failed: {_tls_advice(reason)} (" + Quoted(error) + ")"
    return ConnectionFailedError(said, status="permanent")


def last_word(sock: socket.socket, error: OSError) -> OSError:
    """Why a request could not be sent: the TLS alert that the server sent before, if any, otherwise the send error.

    In TLS 1.3 the server checks the client certificate after the handshake has ended for the client. It then sends an
    alert and closes; microseconds decide whether sending or receiving sees this first.
    """
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLError as alert:
            return alert
        except OSError:
            pass
    return error


def _tls_advice(reason: str) -> str:
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "ACCESS_DENIED" in reason:
        return "the server requires a client certificate, or a different one: check client_cert="
    if "HANDSHAKE_FAILURE" in reason:
        return "there is no common cipher, or the server requires a client certificate (client_cert=)"
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return "the server does not use TLS on this port: use http:// or another port"
    if "VERSION" in reason or "PROTOCOL" in reason:
        return "the server supports no TLS version that is allowed here"
    return "the negotiation failed"


# The message of http.client when a proxy refuses CONNECT; the status is not available otherwise.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def _tunnel_failed(status: int) -> Error:
    if status == 407:
        kind, said = status_class(status, pinned=False)
        return kind(f"HTTP {status}: {said}", http_status=status)
    lasting: Literal["permanent", "temporary"] = "temporary" if status >= 500 else "permanent"
    return ConnectionFailedError(f"the proxy refuses with HTTP {status}", http_status=status, status=lasting)


def breaking_failed(error: BaseException, response: ResponseParser) -> Error:
    """The error for a response that did not complete."""
    if isinstance(error, BadResponse):
        return ServerError("the server's response is invalid: " + error.args[0])
    if isinstance(error, ConnectionEnded):
        came = "in the middle of its response" if response.started else "without a response"
        return ConnectionFailedError(f"the server closed the connection {came}")
    if isinstance(error, ssl.SSLError) and not response.started:
        return _tls_failed(error)  # see `last_word`
    return ConnectionFailedError("the connection broke: " + Quoted(error))


def credentials_failed(error: BaseException) -> Error:
    """The error for an exception of the caller's credentials callable. A `rangeio.Error` passes, with its text as
    `Quoted`.
    """
    if not isinstance(error, Error):
        return _made_of(UnauthenticatedError, "credentials() failed", error)
    error.args = (Quoted(error), *error.args[1:])
    return error


def defect(error: BaseException) -> Error:
    """The error for an unexpected exception. The read fails with it; otherwise it would never end."""
    said = "the read failed because of a defect in rangeio"
    return error if isinstance(error, Error) else _made_of(UnexpectedError, said, error)


def _made_of(kind: type[Error], said: str, error: BaseException) -> Error:
    """An error of `kind` caused by `error`, whose text stays in the traceback: it may quote secrets that were sent."""
    made = kind(f"{said}: {type(error).__name__}")
    made.__cause__ = error
    return made


def is_of_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler raised it while our code was running, for instance to end a call. Such an exception
    belongs to the program, whatever its class.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # Python runs signal handlers in the main thread only
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


def guarded(read: RangeRead, work: Callable[..., _T], *arguments: Any) -> _T:
    """Call `work` for one read. Raises an unexpected exception as a `rangeio.Error`."""
    try:
        return work(*arguments)
    except (Error, MemoryError):
        raise
    except Exception as error:
        if is_of_signal_handler(error):
            raise
        raise as_error(read, defect(error), 1) from error


def as_error(read: RangeRead, error: Error, attempts: int, head: Head | None = None) -> Error:
    """The error as the caller of a read sees it: with the requested range and the object.

    Its message may contain text of the server (`Quoted`), which may quote the request: secrets are removed from that
    text. This is not repeated for an error that went through here or through `RemoteObject.refused`, which removes
    secrets itself and stores the message in `context` as "said".
    """
    if error.path and read.index == error.index:
        return error
    secrets = [*read.remote.secrets()]
    said, advice = error.context.get("said"), error.context.get("advice", "")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        advice = advice or read.remote.access.credentials.advice
    if said is None:
        said = without_secrets(error.args[0], secrets)
    offset = read.offset
    limit = None if offset is None or read.stop == OPEN else read.stop - read.start
    shown = read.remote.shown
    status = error.http_status if error.http_status is not None else head.status if head is not None else None
    known = error.request_id or (request_id(head) if head is not None else None)
    known = known and _legible(hidden(known, secrets))
    found = type(error)(
        f"{asked(shown, offset, limit)}: {said}{_tries(attempts, known)}" + (advice and f"; {advice}"),
        path=shown,
        offset=offset,
        limit=limit,
        errno=error.errno,
        status=error.status,
        attempts=max(1, attempts),
        http_status=status,
        request_id=known,
        index=max(0, read.index),
        context={**error.context, "said": said, "advice": advice},
    )
    found.__cause__ = error.__cause__
    told_failure(read, found)
    return found


_MOST_OF_AN_ID = 200


def _legible(text: str) -> str | None:
    """The request id of a server, shortened for a message; None if it is not printable."""
    return text[:_MOST_OF_AN_ID] if text.isprintable() else None


def _tries(attempts: int, known: str | None) -> str:
    """The number of attempts and the id of the last request, for a message."""
    parts = [f"{attempts} attempts"] if attempts > 1 else []
    parts += [f"request {known}"] if known else []
    return f" ({', '.join(parts)})" if parts else ""
