"""The errors of the core, created by a factory that the layer above sets.

Nothing here does I/O or depends on the backend.
"""

import errno as _errno
import io
import os
from typing import Literal, Protocol

ErrorKind = Literal["errno", "changed", "eof", "closed", "unsupported", "failed"]
"""``"failed"``: an unexpected exception, named in `detail`."""


class ErrorFactory(Protocol):
    """Create the exception to raise. `errno` is 0 unless `kind` is ``"errno"``. offset and limit may be None."""

    def __call__(
        self, kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
    ) -> BaseException: ...


def _builtin_error(
    kind: ErrorKind, errno: int, path: str, offset: int | None, limit: int | None, detail: str
) -> BaseException:
    """The default factory: builtin exceptions, so that the core can be used alone."""
    asked = "" if offset is None else f" (offset {offset}, limit {limit})"
    text = f"{path!r}{asked}: {detail or kind}"
    if kind == "errno":
        return OSError(errno, f"{os.strerror(errno)}{asked}{': ' if detail else ''}{detail}", path)
    if kind == "eof":
        return EOFError(text)
    if kind == "closed":
        return ValueError(text)
    if kind == "unsupported":
        return io.UnsupportedOperation(text)
    if kind == "failed":
        return OSError(_errno.EIO, text)
    return OSError(getattr(_errno, "ESTALE", _errno.EIO), text)


_Kinds = tuple[type[BaseException], ...]
_BUILTIN: _Kinds = (OSError, EOFError, ValueError)

_factory: ErrorFactory = _builtin_error
_tree: _Kinds = _BUILTIN


def set_error_factory(factory: ErrorFactory, tree: _Kinds = _BUILTIN) -> None:
    """Set the factory of all errors of the core, process-wide. tree: the exception classes that it creates."""
    global _factory, _tree
    _factory, _tree = factory, tree


def make_error(
    kind: ErrorKind,
    errno: int = 0,
    path: str = "",
    offset: int | None = None,
    limit: int | None = None,
    detail: str = "",
) -> BaseException:
    """Create the exception for one failure, for the caller to raise. Arguments as of the factory."""
    return _factory(kind, errno, path, offset, limit, detail)


def is_failure(error: BaseException) -> bool:
    """Whether the exception belongs to the error tree, so that a read may raise it unchanged."""
    return isinstance(error, _tree)


def as_failure(
    error: BaseException, path: str = "", offset: int | None = None, limit: int | None = None
) -> BaseException:
    """Convert an exception to one that a read may raise: unchanged if it is one, else as the cause of a new one."""
    if is_failure(error):
        return error
    if isinstance(error, OSError) and error.errno:
        made = make_error("errno", error.errno, path, offset, limit)
    else:
        made = make_error("failed", 0, path, offset, limit, f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made


def without_frames(error: BaseException) -> BaseException:
    """Drop the tracebacks of `error` and its causes: they would keep their frames alive, and all those reference."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
