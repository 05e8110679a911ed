"""Writes a local file that a later run can continue: `rangeio cp --continue`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from rangeio.cli.range_syntax import RangeArgument
from rangeio.cli.whole_file import mode_of, settle
from rangeio.errors import Error
from rangeio.ranges import Suffix
from rangeio.service import Stat

SUFFIX = ".part"
"""The bytes so far are in PATH.part, the version of the object that they belong to is in PATH.part.json."""


def version_of(stat: Stat, told_by: str, range: RangeArgument | None) -> str:
    """The content of PATH.part.json: equal only for the same bytes of the same version. Empty if nothing tells versions
    apart. It contains no URI, which may be secret. told_by: `capability.pin`.
    """
    if not stat.pin or stat.size is None or told_by in ("", "size"):
        return ""
    part = ["last", range.n] if isinstance(range, Suffix) else list(range or ())
    return json.dumps({"pin": stat.pin, "size": stat.size, "range": part})


def is_complete(path: str, stat: Stat) -> bool:
    """Whether the file at `path` was copied before, by its size and time of modification."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    times = (found.st_mtime_ns // 1_000_000_000, (stat.mtime_ns or 0) // 1_000_000_000)
    return stat.mtime_ns is not None and found.st_size == stat.size and times[0] == times[1]


@contextmanager
def partial_file(path: str, version: str, mtime_ns: int | None) -> Iterator[BinaryIO]:
    """A file to append to, which replaces the file at `path` when it is complete. Its position is the number of bytes
    that an earlier run has left of the same version. After an error it stays, for the next run.

    The complete file gets the object's time of modification, by which `is_complete` knows it.
    """
    part = path + SUFFIX
    try:
        with open(_opened(part), "r+b") as file:
            _claim(file, part)
            if _text(part + ".json") != version:
                file.truncate(0)
                with open(part + ".json", "w") as note:
                    note.write(version)
            file.seek(0, os.SEEK_END)
            yield file
            file.flush()
            settle(file.fileno(), mode_of(path))
            os.replace(part, path)
            if mtime_ns is not None:
                os.utime(path, ns=(mtime_ns, mtime_ns))
        with suppress(FileNotFoundError):
            os.unlink(part + ".json")
    except OSError as error:
        if not isinstance(error, Error):  # an Error comes from reading
            error.filename = path
        raise


def _opened(part: str) -> int:
    return os.open(
        part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0), 0o666
    )


def _claim(file: BinaryIO, part: str) -> None:
    """BlockingIOError if another process writes it; the lock ends with the descriptor (flock(2))."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(None, "another process is writing it", part) from None


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return ""
