"""Exceptions of other libraries as errors of the tree."""

import re

from rangeio import errors
from rangeio.errors import Error, UnexpectedError, asked, from_native
from rangeio.ranges import OPEN

# By the name of a class, in any library, so that none is imported: obstore's, aiohttp's, asyncio's and pyarrow's.
_BY_NAME: dict[str, type[Error]] = {
    "NotFoundError": errors.NotFoundError,
    "PreconditionError": errors.ObjectChangedError,
    "NotModifiedError": errors.NotModifiedError,
    "PermissionDeniedError": errors.PermissionDeniedError,
    "UnauthenticatedError": errors.UnauthenticatedError,
    "NotSupportedError": errors.UnsupportedError,
    "ClientConnectionError": errors.ConnectionFailedError,
    "TimeoutError": errors.TimedOutError,  # before Python 3.11 that of asyncio is no builtin
    "CancelledError": errors.ConnectionFailedError,
}
_BY_BUILTIN: tuple[tuple[type[BaseException], type[Error]], ...] = (
    (FileNotFoundError, errors.NotFoundError),
    (IsADirectoryError, errors.IsDirectoryError),
    (NotADirectoryError, errors.NotDirectoryError),
    (PermissionError, errors.PermissionDeniedError),
    (TimeoutError, errors.TimedOutError),
    (ConnectionError, errors.ConnectionFailedError),
    (NotImplementedError, errors.UnsupportedError),
)
# A query may be a signature, and the part before @ a password: neither is shown.
_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]*@")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"<>)]*=[^\s'\"<>)]*")
_LONGEST = 300


def shown(text: str) -> str:
    """A text of another library, or a path, without the logins and queries of its URLs; its first line only."""
    line = text.strip().partition("\n")[0]
    line = _QUERY.sub("?...", _LOGIN.sub("", line))
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."


def mapped(error: BaseException, named: str | None, path: str, start: int, stop: int) -> Error:
    """The error of the tree for an exception of a store, with the exception as its cause.

    named: the name of its class, if the store knows it.
    """
    if isinstance(error, Error):
        return error
    limit = None if stop == OPEN else stop - start
    text = f"{type(error).__name__}: {shown(str(error))}".rstrip(": ")
    kind: type[Error] | None = None if named is None else getattr(errors, named)
    number = (error.errno or None) if isinstance(error, OSError) else None
    if kind is None:
        kind = _by_builtin(error)
    if kind is None and number is not None:
        made = from_native("errno", number, path, start, limit, text)
        assert isinstance(made, Error)
    else:
        kind = kind or _by_name(error) or UnexpectedError
        place = asked(path, None if limit is None else start, limit)
        made = kind(f"{place}: {text}", path=path, offset=start, limit=limit, errno=number)
    made.__cause__ = error
    return made


def _by_builtin(error: BaseException) -> type[Error] | None:
    return next((kind for builtin, kind in _BY_BUILTIN if isinstance(error, builtin)), None)


def _by_name(error: BaseException) -> type[Error] | None:
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
