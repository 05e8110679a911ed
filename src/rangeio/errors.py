"""What can go wrong, as classes: each is a `rangeio.Error`, an `OSError`, and the builtin a Python user would catch.

Errors of arguments are not here: they are plain `ValueError`, `TypeError` and `OverflowError`, raised before any I/O.
Messages say what was asked, what came and what to do, name ranges half-open, and hold no credential. `from_native`
is the one door by which errno and the other failures of the native core become these classes.
"""

import errno as _errno
import io
import os
from typing import Any, ClassVar, Literal

Status = Literal["permanent", "temporary", "persistent"]
"""Whether a retry may help: never, yes, or it was retried until the attempts were used up. OpenDAL's three words."""


class Error(OSError):
    """Any failure of a read. Catch a subclass, or the builtin that the subclass also is.

    kind: OpenDAL's word for it. path: the object, as asked for. offset, limit: the range in bytes, None where the
    failure is not of one range. status: see `Status`. attempts: requests made. http_status, request_id: of the
    server's last response. index: which range or job of a batch failed first. context: whatever else is known, as text.
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
        self.context = context if context is not None else {}
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
    """There is no such object."""

    kind = "NotFound"


class PermissionDeniedError(Error, PermissionError):
    """The object may be there, but not for you."""

    kind = "PermissionDenied"


class UnauthenticatedError(Error, PermissionError):
    """The service does not know who asks: credentials are missing, wrong or expired."""

    kind = "PermissionDenied"


class IsDirectoryError(Error, IsADirectoryError):
    """A directory, where an object was asked for."""

    kind = "IsADirectory"


class NotDirectoryError(Error, NotADirectoryError):
    """Part of the path is an object, where a directory was asked for."""

    kind = "NotADirectory"


class ConditionNotMatchError(Error):
    """The object is not as a condition of the request wants it."""

    kind = "ConditionNotMatch"


class NotModifiedError(ConditionNotMatchError):
    """The object is still the version the caller has."""

    kind = "NotModified"


class ObjectChangedError(ConditionNotMatchError):
    """The object is no longer the version that was opened. Open it again, or open it with ``pin=False``."""

    kind = "ObjectChanged"


class RangeNotSatisfiedError(Error, ValueError):
    """The range starts beyond the end, and the caller asked to be told."""

    kind = "RangeNotSatisfied"


class UnexpectedEofError(Error, EOFError):
    """The object ends before the bytes that had to be there."""

    kind = "UnexpectedEof"


class UnsupportedError(Error, io.UnsupportedOperation):
    """Not something that this object or service can do."""

    kind = "Unsupported"


class RangeNotSupportedError(UnsupportedError):
    """The server answers a ranged request with something else."""


class ContentEncodedError(RangeNotSupportedError):
    """The server encodes the content, so offsets would not mean the stored bytes."""


class ConfigInvalidError(Error, ValueError):
    """An option, a URI or their combination is wrong."""

    kind = "ConfigInvalid"


class RateLimitedError(Error):
    """The service asks for fewer requests."""

    kind = "RateLimited"
    default_status = "temporary"


class TimedOutError(Error, TimeoutError):
    """No answer in time."""

    default_status = "temporary"


class ConnectionFailedError(Error, ConnectionError):
    """No connection, or it broke."""

    default_status = "temporary"


class ServerError(Error):
    """The server failed."""

    default_status = "temporary"


class ClosedError(Error, ValueError):
    """The Reader, Operator or Reactor was closed before."""

    kind = "Closed"


class UnexpectedError(Error):
    """Anything that has no class of its own, such as EIO."""


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
    _errno.EMFILE: "this process has too many files open: close Readers, or raise the limit (ulimit -n)",
    _errno.ENFILE: "the machine has too many files open (sysctl fs.file-max)",
    _errno.EIO: "the device or the file system could not read it; the kernel log (dmesg) says more",
    _errno.EISDIR: "Operator.list() shows what is in it",
    _errno.ELOOP: "its symbolic links lead in a circle",
    _errno.ENOMEM: "the kernel is out of memory for this read",
}

# What is over sooner or later without anybody changing the request.
_TEMPORARY_ERRNO = frozenset([_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM, _errno.EAGAIN, _errno.EINTR])

NativeKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]

_CLASS_OF_KIND: dict[NativeKind, tuple[type[Error], str]] = {
    "changed": (
        ObjectChangedError,
        "the file changed after it was opened; open it again, or open it with pin=False",
    ),
    "eof": (UnexpectedEofError, "the object ends before the last byte that was asked for"),
    "closed": (ClosedError, "it was closed before"),
    "unsupported": (UnsupportedError, "not supported"),
    "failed": (UnexpectedError, "the read was given up because of an exception in rangeio itself"),
}


def half_open(start: int, stop: int) -> str:
    """A range as messages show it: ``[4096, 8192)``. With a dash it would read as HTTP means it, the last included."""
    return f"[{start}, {stop})"


def asked(path: str, offset: int | None, limit: int | None) -> str:
    """What was asked for, in words: ``bytes [4096, 8192) of 'model.bin'``, half-open, or just the path."""
    if offset is None or limit is None:
        return repr(path)
    return f"bytes {half_open(offset, offset + limit)} of {path!r}"


def from_native(
    kind: NativeKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
) -> BaseException:
    """The error of this tree for one failure of the native core. Given to `_uring.set_error_factory`."""
    status: Status | None = None
    if kind == "errno":
        what = _CLASS_OF_ERRNO.get(errno, UnexpectedError)
        came = f"{os.strerror(errno)} ({_errno.errorcode.get(errno, f'errno {errno}')})"
        status = "temporary" if errno in _TEMPORARY_ERRNO else None
        advice = _ADVICE_FOR_ERRNO.get(errno, "")
    else:
        what, came = _CLASS_OF_KIND[kind]
        advice = ""
    came = "; ".join(filter(None, [came, detail, advice]))
    message = f"{asked(path, offset, limit)}: {came}" if path else came
    return what(message, path=path, offset=offset, limit=limit, errno=errno or None, status=status)


def closest(name: str, known: list[str]) -> str:
    """A question to append to a message about a wrong name, or the names there are."""
    from difflib import get_close_matches  # only on the way to an error

    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
