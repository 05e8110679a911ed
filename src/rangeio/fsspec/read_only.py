"""Everything that would write raises one error, before any request."""

from typing import Any, NoReturn

from rangeio.errors import UnsupportedError


class ReadOnlyError(UnsupportedError, NotImplementedError):
    """rangeio only reads."""


def refuse(what: str) -> ReadOnlyError:
    """The error for `what`, a method or a mode."""
    return ReadOnlyError(f"{what}: rangeio only reads; write with the file system of another library")


def _refusing(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise refuse(name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = "Not supported: rangeio only reads."
    return method


def _refusing_awaited(name: str) -> Any:
    async def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise refuse(name)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = "Not supported: rangeio only reads."
    return method


SYNC = (
    *("put", "put_file", "upload", "pipe", "pipe_file", "write_text", "write_bytes", "touch"),
    *("rm", "rm_file", "delete", "rmdir", "mv", "mv_file", "move", "rename", "cp", "cp_file", "copy"),
    *("mkdir", "makedir", "mkdirs", "makedirs"),
)
AWAITED = (
    *("_put", "_put_file", "_pipe", "_pipe_file", "_touch", "_rm", "_rm_file", "_rmdir"),
    *("_mv", "_mv_file", "_cp_file", "_copy", "_mkdir", "_makedirs"),
)


class ReadOnly:
    """The methods of a file system that would write, each of which raises `ReadOnlyError`."""

    for _name in SYNC:
        locals()[_name] = _refusing(_name)
    for _name in AWAITED:
        locals()[_name] = _refusing_awaited(_name)
    del _name
