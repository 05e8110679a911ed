"""Local files. A Source here is little more than the native File: what that can do itself is handed out as it is."""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from _uring.errors import without_frames
from rangeio.errors import Error, PermissionDeniedError, from_native
from rangeio.ranges import OPEN, Offsets, split
from rangeio.service import (
    Again,
    Capability,
    FileResults,
    Options,
    Stat,
    rolled_up,
)
from rangeio.services.immediate import ImmediateSource

if TYPE_CHECKING:
    from _uring import Buffer, File, Reactor
    from _uring.waiters import Waiter

_T = TypeVar("_T")


class LocalSource(ImmediateSource):
    """One open file. Reads of one range and of a batch, sync and async, are the File's own bound methods."""

    __slots__ = (
        "_file",
        "_pin",
        "_reactor",
        "read_at",
        "read_at_async",
        "read_batch",
        "read_batch_async",
        "read_into",
        "read_into_async",
    )

    def __init__(self, reactor: "Reactor", file: "File", *, pin: bool) -> None:
        self._reactor = reactor
        self._file = file
        self._pin = pin
        for name, put in _SLOTS:
            put(self, getattr(file, name))

    @property
    def again(self) -> Again | None:  # type: ignore[override]
        """See `Source`. The methods that are the File's own pickle with it."""
        return self._file.again

    @again.setter
    def again(self, again: Again | None) -> None:
        """Said by the Reader."""
        self._file.again = again

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def size(self) -> int | None:
        return self._file.size

    @property
    def capability(self) -> Capability:
        return Capability(
            positioned=True,
            suffix=True,
            list=True,
            pin="device+inode+size+mtime" if self._pin and self._file.size is not None else "",
            backend=str(self._reactor.backend),
            direct=self._file.direct,
            direct_reason=self._file.direct_reason,
            alignment=self._file.alignment,
        )

    def fetch(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        with _indexed(starts):
            if chunk is None or not (lengths > chunk).any():
                return self._file.read_many(starts, lengths, concurrent or 0)
            return self._fetch_long(starts, lengths, chunk, concurrent or 0)

    async def fetch_async(
        self, starts: Offsets, lengths: Offsets, *, chunk: int | None, concurrent: int | None
    ) -> "list[Buffer]":
        """See `Source`. What is longer than `chunk` is sent in the core's own pieces, of which many are under way."""
        with _indexed(starts):
            return await self._file.read_many_async(starts, lengths, concurrent or 0)

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        self._file.begin_at(offset, limit, waiter)

    def _fetch_long(self, starts: Offsets, lengths: Offsets, chunk: int, concurrent: int) -> "list[Buffer]":
        """Those within `chunk` in one batch, then the longer ones piece by piece."""
        short = lengths <= chunk
        batch = iter(self._file.read_many(starts[short], lengths[short], concurrent))
        return [
            next(batch) if is_short else self._fetch_pieces(start, length, chunk)
            for is_short, start, length in zip(short.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ]

    def _fetch_pieces(self, start: int, length: int, chunk: int) -> "Buffer":
        """One range, by requests of `chunk` bytes; the file is pinned however few bytes they are."""
        size = self._file.size
        if size is not None:  # memory is taken for what there is
            length = max(0, min(length, size - start))
        if length <= chunk or size is None:
            buffer = self.read_at(start, length)
            self._file.stat()
            return buffer
        stop = start + length
        buffer = self._reactor.allocate(length)
        memory = self._reactor.writable(buffer)
        got = 0
        for first, last in split(start, stop, chunk):
            got += self.read_into(memory[first - start : last - start], first)
            if got < last - start:
                break
        self._file.stat()  # all pieces are of one version, or this raises
        return buffer if got == length else buffer[:got]

    def fetch_each(
        self,
        starts: Offsets,
        lengths: Offsets,
        *,
        chunk: int | None,
        concurrent: int | None,
        ordered: bool = False,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        if chunk is None or not (lengths > chunk).any():
            replies = self._file.iter_many(starts, lengths, concurrent or 0, ordered)
        else:  # what is sent in pieces is read one by one
            replies = self._file.iter_many((), ())
        return self._fetch_rest(replies, starts.tolist(), lengths.tolist(), chunk)

    def _fetch_rest(
        self,
        replies: "Iterator[tuple[int, Buffer]]",
        starts: list[int],
        lengths: list[int],
        chunk: int | None,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        """`replies` until one fails, then what they did not bring, one by one: only so each failure finds its place."""
        missing = dict.fromkeys(range(len(starts)))
        try:
            with closing(cast("Generator[tuple[int, Buffer]]", replies)):
                for index, buffer in replies:
                    del missing[index]
                    yield index, buffer
        except Error:
            pass
        for index in missing:
            try:
                yield index, self._fetch_pieces(starts[index], lengths[index], chunk or OPEN)
            except Error as error:
                without_frames(error)
                yield index, error

    def stat(self) -> Stat:
        size, mtime_ns, device, inode = self._file.stat()
        pin = "" if size is None else f"{device:x}-{inode:x}-{size:x}-{mtime_ns:x}"
        return Stat(self.path, size, pin=pin, mtime_ns=mtime_ns)

    def prefetch(self, starts: Offsets, lengths: Offsets) -> None:
        size = self.size
        if size is not None and not self._file.direct:
            self._file.prefetch(starts, np.clip(size - starts, 0, lengths))

    def yield_if_due(self) -> Awaitable[object]:
        return self.read_at_async(0, 0)  # the core counts it among the reads that did not wait

    def close(self) -> None:
        self._file.close()


_SLOTS = [(name, vars(LocalSource)[name].__set__) for name in LocalSource.__slots__ if name[0] != "_"]


@contextmanager
def _indexed(starts: Offsets) -> Iterator[None]:
    """An Error that passes is given the index of the request that failed."""
    try:
        yield
    except Error as error:
        hits = (starts == error.offset).nonzero()[0]
        error.index = int(hits[0]) if hits.size else None
        raise


class LocalService:
    """The files below `root`, or with root None every path the operating system takes.

    Under a root, paths are relative to it: absolute ones and ``..`` are refused. Symbolic links are followed, also out
    of the root: whoever can place one there can place the data there.
    """

    scheme = "fs"
    defaults = Options()
    versions = False

    def __init__(self, reactor: "Reactor", root: str | os.PathLike[str] | None = None) -> None:
        self._reactor = reactor
        self._root = None if root is None else os.path.join(os.getcwd(), os.fspath(root))

    def open(self, path: str, options: Options) -> LocalSource:
        file = self._reactor.open(self.resolve(path), direct=options.direct, pin=options.pin)
        return LocalSource(self._reactor, file, pin=options.pin)

    def from_fd(self, fd: int, options: Options, *, closefd: bool) -> LocalSource:
        """As `open`, of a file that is open already."""
        file = self._reactor.from_fd(fd, closefd=closefd, direct=options.direct, pin=options.pin)
        return LocalSource(self._reactor, file, pin=options.pin)

    def resolve(self, path: str) -> str:
        """The path for the operating system. PermissionDeniedError if it leads out of the root."""
        if self._root is None:
            return path
        parts = path.replace(os.sep, "/").split("/")
        if ".." in parts or os.path.isabs(path) or os.path.splitdrive(path)[0]:
            raise PermissionDeniedError(
                f"{path!r} leads out of the root {self._root!r}; give a path relative to the root, without '..'",
                path=path,
            )
        return os.path.join(self._root, path)

    def address(self, path: str) -> str:
        return self.absolute(path)

    def absolute(self, path: str) -> str:
        # An empty path names nothing (path_resolution(7)); joined to a directory it would name that.
        return path if self._root is not None or not path else os.path.join(os.getcwd(), path)

    def shown(self, path: str) -> str:
        return path

    def for_one(self) -> None:
        pass

    def without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        head = prefix[: prefix.rfind("/") + 1]
        found = _files_below(self.resolve(head) or os.curdir, head, prefix, deep=delimiter != "/")
        return rolled_up(found, prefix, delimiter)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        resolved = [(self.resolve(path), start, stop) for path, start, stop in jobs]
        return self._reactor.read_files(resolved, pin=options.pin)


# Said of what was removed or replaced after its name was read, and of links that lead nowhere, through a file, or in a
# circle. ESTALE: the same, by a file server.
_GONE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE])


def _files_below(top: str, head: str, prefix: str, *, deep: bool) -> Iterator[Stat]:
    """Regular files of `top` whose name after `head` begins with `prefix`, sorted; other directories are not entered.

    Links to directories are not followed, so there is no circle. Without `deep` directories below `prefix` are told,
    and not entered. What is gone when its turn comes is left out; only `top` has to be there.
    """
    try:
        levels = [_sorted_entries(top, head)]
    except OSError as error:
        raise _listing_failed(top, error) from error
    while levels:  # no recursion: a path has room for more levels than the interpreter has frames
        name, entry = next(levels[-1], ("", None))
        if entry is None:
            levels.pop()
        elif name.startswith(prefix) and name.endswith("/") and not deep:
            yield Stat(name, None, is_prefix=True)
        elif name.startswith(prefix) and name.endswith("/"):
            inner = _unless_gone(entry, partial(_sorted_entries, entry.path, name))
            levels += [] if inner is None else [inner]
        elif name.startswith(prefix):
            status = _unless_gone(entry, entry.stat)
            if status is not None and stat.S_ISREG(status.st_mode):
                yield Stat(name, status.st_size, mtime_ns=status.st_mtime_ns)


def _sorted_entries(folder: str, head: str) -> "Iterator[tuple[str, os.DirEntry[str]]]":
    """What is in `folder`: paths, which begin with `head`, directories ending in a slash; and the entries."""
    with os.scandir(folder) as found:
        entries = [(head + entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in found]
    return iter(sorted(entries, key=lambda pair: pair[0]))


def _unless_gone(entry: "os.DirEntry[str]", look: Callable[[], _T]) -> _T | None:
    """What `look` finds; None if the entry is no longer there, or is a link that leads nowhere."""
    try:
        return look()
    except OSError as error:
        # Of a link ENAMETOOLONG is said of where it leads, of anything else of the path of a file that is there.
        if error.errno in _GONE or (error.errno == errno.ENAMETOOLONG and entry.is_symlink()):
            return None
        raise _listing_failed(entry.path, error) from error


def _listing_failed(path: str, error: OSError) -> BaseException:
    return from_native("errno", error.errno or 0, path, None, None, "")
