"""A local file that has its name when it is complete, and of which nothing is left where it is not."""

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO

from rangeio.errors import Error

_ENDING_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of what is at `path` when it is complete; after an error that stays.

    Until then it has no name (O_TMPFILE), so that nothing is left even by SIGKILL. Where the file system cannot do
    that, it has a hidden one, which is removed when another signal ends the process. A device or a pipe is written to
    as it is. An OSError of writing names `path`.
    """
    kept = os.path.lexists(path) and not os.path.isfile(path)
    try:
        with open(path, "wb") if kept else _complete_or_gone(path) as file:
            yield file
    except OSError as error:
        if not isinstance(error, Error):  # those are of what is read
            error.filename = path
        raise


@contextmanager
def _complete_or_gone(path: str) -> Iterator[BinaryIO]:
    with _passing_name(os.path.dirname(path)) as hidden:
        mode = _mode_of(path)
        descriptor, named = _created(hidden, 0o666 if mode is None else 0o600)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)  # or a crash soon after could leave the name without the bytes
            # There is no call that puts a file without a name in another's place: it is given one to be renamed.
            if not named and not _linked(descriptor, path):
                named = _linked(descriptor, hidden)
        if named:
            os.replace(hidden, path)


def _created(hidden: str, mode: int) -> tuple[int, bool]:
    """A new file to write to, and whether it has the name `hidden`, or none."""
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed and os.path.isdir("/proc/self/fd"):  # which it takes to give it a name later
        with suppress(OSError):  # EOPNOTSUPP or EISDIR; the reason for anything else is met again below
            return os.open(os.path.dirname(hidden), unnamed | os.O_WRONLY, mode), False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(hidden, flags, mode), True


def _linked(descriptor: int, path: str) -> bool:
    """Give a file without a name this one, as open(2) tells how. False if there is something of that name."""
    try:
        # src_dir_fd means nothing beside an absolute path, but makes it linkat(2): link(2) does not follow links.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def _mode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        return None


@contextmanager
def _passing_name(folder: str) -> Iterator[str]:
    """A name in `folder` under which nothing is left at the end, or when a signal ends the process before.

    It is removed in the signal's handler already: what unwinds after Ctrl-C may be interrupted by another one.
    """
    hidden = os.path.join(
        folder, f".rangeio-{secrets.token_hex(8)}"
    )  # short, whatever NAME_MAX leaves of the other

    def remove() -> None:
        with suppress(FileNotFoundError):
            os.unlink(hidden)

    before = _handled(remove)
    try:
        yield hidden
    finally:
        remove()
        for number, handler in before.items():
            signal.signal(number, handler)


def _handled(remove: Callable[[], None]) -> dict[int, Any]:
    """Have `remove` called by the signals that end the process; their handlers before. Others are left as they are."""

    def end(number: int, frame: FrameType | None) -> None:
        remove()
        if before[number] is signal.default_int_handler:
            signal.default_int_handler(number, frame)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        os._exit(128 + number)  # as the first process of a container: the kernel spares those

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _ENDING_SIGNALS if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = handler
                signal.signal(number, end)
    return before
