"""Readers of what the process has already: bytes in memory, open descriptors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import _uring
from rangeio.async_reader import AsyncReader
from rangeio.reader import Reader
from rangeio.services.local import LocalService
from rangeio.services.memory import MemoryService, MemorySource

if TYPE_CHECKING:
    from _uring import Reactor


def from_bytes(
    data: bytes | bytearray | memoryview, *, reactor: Reactor | None = None, **options: Any
) -> Reader:
    """A Reader of bytes in memory. Copies `data` unless it is `bytes`. Pickles with the bytes."""
    kept = bytes(data)
    source = MemorySource(_uring.default_reactor() if reactor is None else reactor, "<bytes>", kept)
    return Reader(source, MemoryService.defaults.updated(options), partial(from_bytes, kept, **options))


def from_fd(fd: int, *, closefd: bool = False, reactor: Reactor | None = None, **options: Any) -> Reader:
    """A Reader of a file that is already open. Neither uses nor moves the cursor of `fd`. Does not pickle.

    closefd: if True, closing the Reader closes `fd` (if creating the Reader fails, `fd` stays open). Otherwise keep
    `fd` open while the Reader is in use.

    The Reader has its own descriptor, unless it closes yours. A process loses its POSIX record locks on a file
    (`fcntl.lockf`) when it closes any descriptor of that file (fcntl(2)), so also when this Reader or any other Reader
    of the file is closed. Keep the Reader open as long as the lock is needed, or use `fcntl.flock` or F_OFD_SETLK,
    whose locks belong to the open file description and stay.
    """
    service = LocalService(_uring.default_reactor() if reactor is None else reactor)
    chosen = service.defaults.updated(options)
    return Reader(service.from_fd(fd, chosen, closefd=closefd), chosen)


def from_bytes_async(
    data: bytes | bytearray | memoryview, *, reactor: Reactor | None = None, **options: Any
) -> AsyncReader:
    """Like `from_bytes`, for await. Pickles with the bytes."""
    kept = bytes(data)
    source = MemorySource(_uring.default_reactor() if reactor is None else reactor, "<bytes>", kept)
    chosen = MemoryService.defaults.updated(options)
    reader = AsyncReader(lambda: source, chosen, source.path, partial(from_bytes_async, kept, **options))
    reader._opened()
    return reader


def from_fd_async(
    fd: int, *, closefd: bool = False, reactor: Reactor | None = None, **options: Any
) -> AsyncReader:
    """Like `from_fd`, for await. Unlike a path, the descriptor is opened now, because it may be closed later."""
    service = LocalService(_uring.default_reactor() if reactor is None else reactor)
    chosen = service.defaults.updated(options)
    source = service.from_fd(fd, chosen, closefd=closefd)
    reader = AsyncReader(lambda: source, chosen, source.path)
    reader._opened()  # so that closing the reader closes the file even if it was never used
    return reader
