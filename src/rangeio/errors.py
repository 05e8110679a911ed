"""The exception classes. Each is a `rangeio.Error`, an `OSError`, and the builtin that a Python user would catch.

Argument errors are not here: they are plain `ValueError`, `TypeError` and `OverflowError`, raised before any I/O.
Messages say what was requested, what happened and what to do. They show ranges half-open and contain no credentials.
`from_native` is the only function that converts errno and other failures of the native core to these classes.
"""

import errno as _errno
import io
import os
from typing import Any, ClassVar, Literal

from rangeio.logs import log

Status = Literal["permanent", "temporary", "persistent"]
"""Whether a retry may help: permanent: no; temporary: yes; persistent: all attempts failed. OpenDAL's terms."""


class Error(OSError):
    """Any failure of a read. Catch a subclass, or the builtin that the subclass also is.

    kind: OpenDAL's error kind. path: the object, as requested. offset, limit: the range in bytes, None if the failure
    does not concern one range. status: see `Status`. attempts: number of requests made. http_status, request_id: of the
    server's last response. index: the range or job of a batch that failed. context: further details, as text.
    """

    kind: ClassVar[str] = "Unexpected"
    default_status: ClassVar[Status] = "permanent"

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        offset: int | None = None,
        limit: int | None = None,
        errno: int | None = None,
        status: Status | None = None,
        attempts: int = 1,
        http_status: int | None = None,
        request_id: str | None = None,
        index: int | None = None,
        context: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.limit = limit
        self.status: Status = status or self.default_status
        self.attempts = attempts
        self.http_status = http_status
        self.request_id = request_id
        self.index = index
        self.context: dict[str, str] = context if context is not None else {}
        self.errno = errno
        self.strerror = os.strerror(errno) if errno else message
        self.filename = path or None

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self), dict(self.__dict__, errno=self.errno))


def _restore(kind: type[Error], message: str, attributes: dict[str, Any]) -> Error:
    return kind(message, **attributes)


class NotFoundError(Error, FileNotFoundError):
    """The object does not exist."""

    kind = "NotFound"


class PermissionDeniedError(Error, PermissionError):
    """Access to the object is denied; it may or may not exist."""

    kind = "PermissionDenied"


class UnauthenticatedError(Error, PermissionError):
    """The service cannot authenticate the caller: credentials are missing, wrong or expired."""

    kind = "PermissionDenied"


class IsDirectoryError(Error, IsADirectoryError):
    """The path is a directory, not an object."""

    kind = "IsADirectory"


class NotDirectoryError(Error, NotADirectoryError):
    """A parent in the path is an object, not a directory."""

    kind = "NotADirectory"


class ConditionNotMatchError(Error):
    """The object does not meet a condition of the request."""

    kind = "ConditionNotMatch"


class NotModifiedError(ConditionNotMatchError):
    """The object is still the version that the caller has."""

    kind = "NotModified"


class ObjectChangedError(ConditionNotMatchError):
    """The object is no longer the version that was opened. Open it again, or open it with ``pin=False``."""

    kind = "ObjectChanged"


class RangeNotSatisfiedError(Error, ValueError):
    """The range starts past the end of the object, in a call that reports this."""

    kind = "RangeNotSatisfied"


class UnexpectedEofError(Error, EOFError):
    """The object ends before the requested bytes."""

    kind = "UnexpectedEof"


class UnsupportedError(Error, io.UnsupportedOperation):
    """The object or service does not support the operation."""

    kind = "Unsupported"


class RangeNotSupportedError(UnsupportedError):
    """The server does not respond to a range request with that range."""


class ContentEncodedError(RangeNotSupportedError):
    """The server encodes the content, so offsets would not refer to the stored bytes."""


class ConfigInvalidError(Error, ValueError):
    """An option, a URI or their combination is invalid."""

    kind = "ConfigInvalid"


class RateLimitedError(Error):
    """The service limits the rate of requests."""

    kind = "RateLimited"
    default_status = "temporary"


class TimedOutError(Error, TimeoutError):
    """A time limit has passed."""

    default_status = "temporary"


class ConnectionFailedError(Error, ConnectionError):
    """The connection could not be made, or it broke."""

    default_status = "temporary"


class ServerError(Error):
    """The server reported an internal failure."""

    default_status = "temporary"


class ClosedError(Error, ValueError):
    """The Reader, Operator or Reactor is closed."""

    kind = "Closed"


class UnexpectedError(Error):
    """Any failure without a class of its own, such as EIO."""


_CLASS_OF_ERRNO: dict[int, type[Error]] = {
    _errno.ENOENT: NotFoundError,
    _errno.EACCES: PermissionDeniedError,
    _errno.EPERM: PermissionDeniedError,
    _errno.EISDIR: IsDirectoryError,
    _errno.ENOTDIR: NotDirectoryError,
    _errno.ESTALE: ObjectChangedError,
    _errno.ESPIPE: UnsupportedError,
    _errno.ENXIO: UnsupportedError,
    _errno.EOPNOTSUPP: UnsupportedError,
    _errno.ETIMEDOUT: TimedOutError,
    _errno.ECONNREFUSED: ConnectionFailedError,
    _errno.ECONNRESET: ConnectionFailedError,
    _errno.ECONNABORTED: ConnectionFailedError,
    _errno.EHOSTUNREACH: ConnectionFailedError,
    _errno.ENETUNREACH: ConnectionFailedError,
    _errno.EPIPE: ConnectionFailedError,
}

_ADVICE_FOR_ERRNO: dict[int, str] = {
    _errno.EMFILE: "this process has too many open files: close Readers, or raise the limit (ulimit -n)",
    _errno.ENFILE: "the machine has too many open files (sysctl fs.file-max)",
    _errno.EIO: "the device or the file system could not read it; see the kernel log (dmesg)",
    _errno.EISDIR: "Operator.list() lists its content",
    _errno.ELOOP: "its symbolic links are circular",
    _errno.ENOMEM: "the kernel is out of memory for this read",
}

# Failures that may end without a change of the request.
_TEMPORARY_ERRNO = frozenset([_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM, _errno.EAGAIN, _errno.EINTR])

NativeKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]

_CLASS_OF_KIND: dict[NativeKind, tuple[type[Error], str]] = {
    "changed": (
        ObjectChangedError,
        "the file changed after it was opened; open it again, or open it with pin=False",
    ),
    "eof": (UnexpectedEofError, "the object ends before the last requested byte"),
    "closed": (ClosedError, "it is closed"),
    "unsupported": (UnsupportedError, "not supported"),
    "failed": (UnexpectedError, "the read was abandoned because of an exception inside rangeio"),
}


def half_open(start: int, stop: int) -> str:
    """A range as messages show it: ``[4096, 8192)``. A dash would suggest an HTTP range, which includes its end."""
    return f"[{start}, {stop})"


def asked(path: str, offset: int | None, limit: int | None) -> str:
    """The requested range as messages show it: ``bytes [4096, 8192) of 'model.bin'``, or only the path."""
    if offset is None or limit is None:
        return repr(path)
    return f"bytes {half_open(offset, offset + limit)} of {path!r}"


def from_native(
    kind: NativeKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
) -> BaseException:
    """The exception for one failure of the native core. Passed to `_uring.set_error_factory`."""
    status: Status | None = None
    if kind == "errno":
        what = _CLASS_OF_ERRNO.get(errno, UnexpectedError)
        came = f"{os.strerror(errno)} ({_errno.errorcode.get(errno, f'errno {errno}')})"
        status = "temporary" if errno in _TEMPORARY_ERRNO else None
        advice = _ADVICE_FOR_ERRNO.get(errno, "")
    else:
        what, came = _CLASS_OF_KIND[kind]
        advice = ""
        if kind == "changed":
            log("rangeio.local", "warning", "%s: the file changed after it was opened", path)
    came = "; ".join(filter(None, [came, detail, advice]))
    message = f"{asked(path, offset, limit)}: {came}" if path else came
    return what(message, path=path, offset=offset, limit=limit, errno=errno or None, status=status)


def closest(name: str, known: list[str]) -> str:
    """A suggestion to append to a message about an unknown name: the closest known name, or all of them."""
    from difflib import get_close_matches  # only needed for errors

    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
