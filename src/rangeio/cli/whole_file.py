"""Writes a local file that gets its name only when it is complete, and leaves nothing behind otherwise."""

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, BinaryIO

from rangeio.errors import Error

_ENDING_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A file to write, which replaces the file at `path` when it is complete; after an error that file stays.

    Until then it has no name (O_TMPFILE), so that even SIGKILL leaves nothing behind. If the file system does not
    support this, it has a hidden name, which is removed if another signal ends the process. A device or a pipe is
    written directly. An OSError while writing contains `path`.
    """
    kept = os.path.lexists(path) and not os.path.isfile(path)
    try:
        with open(path, "wb") if kept else _complete_or_gone(path) as file:
            yield file
    except OSError as error:
        if not isinstance(error, Error):  # an Error comes from reading
            error.filename = path
        raise


@contextmanager
def _complete_or_gone(path: str) -> Iterator[BinaryIO]:
    with _passing_name(os.path.dirname(path)) as hidden:
        mode = mode_of(path)
        descriptor, named = _created(hidden, 0o666 if mode is None else 0o600)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            settle(descriptor, mode)
            # No system call replaces a file with an unnamed one: it gets a hidden name and is then renamed.
            if not named and not _linked(descriptor, path):
                named = _linked(descriptor, hidden)
        if named:
            os.replace(hidden, path)


def _created(hidden: str, mode: int) -> tuple[int, bool]:
    """A new file to write, and whether it has the name `hidden` (otherwise it has none)."""
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed and os.path.isdir("/proc/self/fd"):  # needed to give it a name later
        with suppress(OSError):  # EOPNOTSUPP or EISDIR; any other error occurs again below
            return os.open(os.path.dirname(hidden), unnamed | os.O_WRONLY, mode), False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(hidden, flags, mode), True


def _linked(descriptor: int, path: str) -> bool:
    """Give an unnamed file the name `path`, as open(2) describes. False if the name exists."""
    try:
        # src_dir_fd has no effect with an absolute path, but selects linkat(2): link(2) does not follow links.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def settle(descriptor: int, mode: int | None) -> None:
    """Before a file gets its name: the mode of the file that it replaces, and its bytes on the device, because a crash
    soon after could leave the name without them.
    """
    if mode is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    os.fsync(descriptor)


def mode_of(path: str) -> int | None:
    """The permissions of a file, None if there is none."""
    try:
        return os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        return None


_hidden: set[str] = set()
"""Temporary names of all threads."""


@contextmanager
def _passing_name(folder: str) -> Iterator[str]:
    """A temporary name in `folder`, which is removed at the end, or if a signal ends the process before."""
    hidden = os.path.join(folder, f".rangeio-{secrets.token_hex(8)}")  # short, because of NAME_MAX
    with removed_by_signals():
        _hidden.add(hidden)
        try:
            yield hidden
        finally:
            _remove(hidden)


def _remove(hidden: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(hidden)
    _hidden.discard(hidden)


@contextmanager
def removed_by_signals() -> Iterator[None]:
    """Within it, a signal that ends the process removes all temporary names, those of other threads too. Only the main
    thread can install handlers (`signal`); elsewhere this does nothing. Custom handlers stay.

    The signal handler itself removes them, because another Ctrl-C may interrupt the cleanup after the first one.
    """
    before: dict[int, Any] = {}

    def end(number: int, frame: FrameType | None) -> None:
        for hidden in [*_hidden]:
            _remove(hidden)
        if before[number] is signal.default_int_handler:
            signal.default_int_handler(number, frame)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        os._exit(128 + number)  # for the first process of a container, which the kernel does not end

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _ENDING_SIGNALS if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = handler
                signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
