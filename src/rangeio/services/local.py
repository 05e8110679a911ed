"""Local files. A `LocalSource` is a thin layer over the native File and exposes its methods directly."""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from _uring.errors import without_frames
from rangeio.errors import ConfigInvalidError, Error, PermissionDeniedError, from_native
from rangeio.logs import log
from rangeio.options import Options
from rangeio.ranges import OPEN, Offsets, split
from rangeio.service import (
    Again,
    Capability,
    Counts,
    FileResults,
    Into,
    Location,
    Service,
    Stat,
    rolled_up,
)
from rangeio.services.immediate import ImmediateSource

if TYPE_CHECKING:
    from _uring import Buffer, File, Reactor
    from _uring.waiters import Waiter

_T = TypeVar("_T")


class LocalSource(ImmediateSource):
    """One open file. Reads of one range and of a batch, sync and async, are the bound methods of the File."""

    __slots__ = (
        "_file",
        "_pin",
        "_reactor",
        "read_at",
        "read_at_async",
        "read_batch",
        "read_batch_async",
        "read_cached",
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
        """See `Source`. The bound methods of the File pickle with it."""
        return self._file.again

    @again.setter
    def again(self, again: Again | None) -> None:
        """Set by the Reader."""
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
            mapped=self._file.mapped,
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
        """See `Source`. Requests longer than `chunk` are sent in the core's own pieces, many of them in flight."""
        with _indexed(starts):
            return await self._file.read_many_async(starts, lengths, concurrent or 0)

    def fetch_into(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        try:
            return [*self._file.read_many_into(views, starts, how.concurrent or 0)]
        except Error as error:
            self._blame(error, views, starts, how)
        results: Counts = []
        for index, view in enumerate(views):
            try:
                results += self._file.read_many_into([view], starts[index : index + 1])
            except Error as error:
                results.append(_at(index, error))
        return results

    async def fetch_into_async(self, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
        """See `Source`."""
        try:
            return [*await self._file.read_many_into_async(views, starts, how.concurrent or 0)]
        except Error as error:
            self._blame(error, views, starts, how)
        results: Counts = []
        for index, view in enumerate(views):
            try:
                results += await self._file.read_many_into_async([view], starts[index : index + 1])
            except Error as error:
                results.append(_at(index, error))
        return results

    def _blame(self, error: Error, views: list[memoryview], starts: Offsets, how: Into) -> None:
        """Raise the failure of many reads, with its index, unless each is to be made again, for its own result."""
        if not how.each or self.closed:
            lengths = np.array([len(view) for view in views], np.int64)
            hits = ((starts == error.offset) & (lengths == error.limit)).nonzero()[0]
            error.index = int(hits[0]) if hits.size else None
            raise error

    def begin_at(self, offset: int, limit: int, waiter: "Waiter", *, chunk: int | None = None) -> None:
        self._file.begin_at(offset, limit, waiter)

    def _fetch_long(self, starts: Offsets, lengths: Offsets, chunk: int, concurrent: int) -> "list[Buffer]":
        """Read the requests within `chunk` in one batch, the longer ones in pieces."""
        short = lengths <= chunk
        batch = iter(self._file.read_many(starts[short], lengths[short], concurrent))
        return [
            next(batch) if is_short else self._fetch_pieces(start, length, chunk)
            for is_short, start, length in zip(short.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ]

    def _fetch_pieces(self, start: int, length: int, chunk: int) -> "Buffer":
        """Read one range with requests of `chunk` bytes; checks the pin even if they are small."""
        size = self._file.size
        if size is not None:  # allocate only for the bytes that exist
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
        self._file.stat()  # raises unless all pieces are of one version
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
            responses = self._file.iter_many(starts, lengths, concurrent or 0, ordered)
        else:  # requests that need pieces are read one by one
            responses = self._file.iter_many((), ())
        return self._fetch_rest(responses, starts.tolist(), lengths.tolist(), chunk)

    def _fetch_rest(
        self,
        responses: "Iterator[tuple[int, Buffer]]",
        starts: list[int],
        lengths: list[int],
        chunk: int | None,
    ) -> "Iterator[tuple[int, Buffer | Error]]":
        """Yields `responses` until one fails, then reads the rest one by one, to assign each failure to its range."""
        missing = dict.fromkeys(range(len(starts)))
        try:
            with closing(cast("Generator[tuple[int, Buffer]]", responses)):
                for index, buffer in responses:
                    del missing[index]
                    yield index, buffer
        except GeneratorExit:
            raise  # of its own, because a free-threaded interpreter that ends has cleared what `Error` is
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
        return self.read_at_async(0, 0)  # the core counts it as a read that did not wait

    def close(self) -> None:
        self._file.close()


_SLOTS = [(name, vars(LocalSource)[name].__set__) for name in LocalSource.__slots__ if name[0] != "_"]


def _at(index: int, error: Error) -> Error:
    error.index = index
    without_frames(error)
    return error


@contextmanager
def _indexed(starts: Offsets) -> Iterator[None]:
    """Set the index of the failed request in an Error."""
    try:
        yield
    except Error as error:
        hits = (starts == error.offset).nonzero()[0]
        error.index = int(hits[0]) if hits.size else None
        raise


class LocalService(Service):
    """The files below `root`, or if root is None, every path the operating system accepts.

    With a root, paths are relative to it: absolute paths and ``..`` are refused. Symbolic links are followed, even out
    of the root: whoever can create a link there can also copy the data there.
    """

    scheme = "fs"
    option_names = ("root",)

    def __init__(self, reactor: "Reactor", root: str | os.PathLike[str] | None = None) -> None:
        self._reactor = reactor
        if not _BACKENDS_TOLD:
            _tell_backend(reactor)
        # An absolute root needs no current directory, which may not exist any more.
        given = None if root is None else os.fspath(root)
        self._root = given if given is None or os.path.isabs(given) else os.path.join(os.getcwd(), given)
        self._root_and_slash = os.path.join(self._root or "", "")

    @classmethod
    def locate(cls, scheme: str, rest: str) -> Location:
        """A ``file`` URI. Source: RFC 8089."""
        host, slash, path = rest.partition("/")
        if host.lower() not in ("", "localhost"):
            raise ConfigInvalidError(
                f"a file URI must name a file of this machine, not of {host!r}; write file:///path",
                path=f"file://{rest}",
            )
        if "?" in path or "#" in path:
            raise ConfigInvalidError(
                "a file URI cannot have a query or fragment; write ? as %3F and # as %23",
                path=f"file://{rest}",
            )
        from urllib.parse import unquote_to_bytes

        decoded = os.fsdecode(unquote_to_bytes(slash + path))
        return Location({}, decoded.lstrip("/") if os.name == "nt" else decoded)

    def open(self, path: str, options: Options) -> LocalSource:
        file = self._reactor.open(
            self.resolve(path), direct=options.direct, pin=options.pin, mapped=options.mapped
        )
        return LocalSource(self._reactor, file, pin=options.pin)

    def from_fd(self, fd: int, options: Options, *, closefd: bool) -> LocalSource:
        """Like `open`, for a file descriptor."""
        file = self._reactor.from_fd(
            fd, closefd=closefd, direct=options.direct, pin=options.pin, mapped=options.mapped
        )
        return LocalSource(self._reactor, file, pin=options.pin)

    def resolve(self, path: str) -> str:
        """The path for the operating system. PermissionDeniedError if it leaves the root."""
        if self._root is None:
            return path
        if path.startswith("/") or ".." in path.split("/"):
            raise PermissionDeniedError(
                f"{path!r} leaves the root {self._root!r}; pass a path relative to the root, without '..'",
                path=path,
            )
        return self._root_and_slash + path

    def address(self, path: str) -> str:
        return self.absolute(path)

    def absolute(self, path: str) -> str:
        # An empty path is invalid (path_resolution(7)); joined to a directory it would name the directory.
        if self._root is not None or not path or os.path.isabs(path):
            return path  # the current directory may not exist any more
        return os.path.join(os.getcwd(), path)

    @classmethod
    def is_place(cls, prefix: str) -> bool:
        return not prefix or os.path.isdir(prefix)

    def list(self, prefix: str, delimiter: str | None, options: Options) -> Iterator[Stat]:
        head = prefix[: prefix.rfind("/") + 1]
        found = _files_below(self.resolve(head) or os.curdir, head, prefix, self._root, deep=delimiter != "/")
        return rolled_up(found, prefix, delimiter)

    def read_files(self, jobs: Sequence[tuple[str, int, int | None]], options: Options) -> FileResults:
        resolved = [(self.resolve(path), start, stop) for path, start, stop in jobs]
        return self._reactor.read_files(resolved, pin=options.pin)


_BACKENDS_TOLD: list[str] = []


def _tell_backend(reactor: "Reactor") -> None:
    """Log what the first reactor reads with, and why not by io_uring."""
    found = reactor.backend
    _BACKENDS_TOLD.append(found.name)
    if found.name == "uring":
        log("rangeio.local", "debug", "files are read by io_uring: %s", found.reason)
    else:
        log("rangeio.local", "info", "files are read without io_uring (%s): %s", found.name, found.reason)


# The errors of entries that were removed or replaced after the directory was read, and of links that are dangling, lead
# through a file, or are circular. ESTALE: the same from a file server.
_GONE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE])


def _files_below(top: str, head: str, prefix: str, root: str | None, *, deep: bool) -> Iterator[Stat]:
    """Regular files below `top` whose path (`head` and the name) begins with `prefix`, sorted. Enters no other
    directories.

    Does not follow links to directories, so there are no cycles. If not `deep`, yields directories below `prefix`
    without entering them. Omits entries that are deleted meanwhile; nothing where `top` is not a directory. A root that
    is not there is an error, as a bucket that is not there.
    """
    try:
        levels = [_sorted_entries(top, head)]
    except OSError as error:
        nothing = error.errno in _GONE or error.errno == errno.ENAMETOOLONG
        if nothing and (root is None or os.path.isdir(root)):
            return  # no path begins with it, as no key would
        raise _listing_failed(root if nothing and root else top, error) from error
    while levels:  # no recursion: a path can have more levels than the interpreter allows frames
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
    """(path, entry) for the content of `folder`, sorted. Paths begin with `head`; directories end in a slash."""
    with os.scandir(folder) as found:
        entries = [(head + entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in found]
    return iter(sorted(entries, key=lambda pair: pair[0]))


def _unless_gone(entry: "os.DirEntry[str]", look: Callable[[], _T]) -> _T | None:
    """The result of `look`; None if the entry no longer exists or is a dangling link."""
    try:
        return look()
    except OSError as error:
        # ENAMETOOLONG of a link refers to its target; of anything else to the path of an existing file.
        if error.errno in _GONE or (error.errno == errno.ENAMETOOLONG and entry.is_symlink()):
            return None
        raise _listing_failed(entry.path, error) from error


def _listing_failed(path: str, error: OSError) -> BaseException:
    return from_native("errno", error.errno or 0, path, None, None, "")
