"""The copies of one `rangeio cp`: which objects go to which files, and several at once."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rangeio
from rangeio.cli.console import Progress, UsageError
from rangeio.cli.opening import PIECE, pieces
from rangeio.cli.partial_file import is_complete, partial_file, version_of
from rangeio.cli.range_syntax import RangeArgument
from rangeio.cli.sizes import size_text
from rangeio.cli.whole_file import removed_by_signals, whole_file
from rangeio.errors import NotFoundError
from rangeio.operator import Operator
from rangeio.ranges import bounds
from rangeio.reader import Reader
from rangeio.services.registry import located, service_class
from rangeio.threads import start_thread

_AT_ONCE = 8
_AHEAD = 15 * PIECE
"""Bytes in flight or waiting to be written, of all copies together: 16 requests of one object."""
_PIECE, _LOST = 1 << 20, 7 << 20
"""Of a copy that may be continued: only whole pieces are kept, so what is in flight is fetched again. Eight requests of
1 MiB are still 200 MB/s of a store that is 20 ms away."""
_DRAW_S = 0.2


@dataclass
class Copy:
    """One object and its file."""

    source: str
    path: str
    open: Callable[[], Reader]
    size: int | None = None
    done: int = 0
    """Bytes so far, those of an earlier run included."""
    kept: int = 0
    """Bytes of an earlier run."""
    seconds: float = 0.0
    skipped: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class How:
    """What is copied of each object, and how."""

    options: dict[str, Any]
    range: RangeArgument | None = None
    resume: bool = False
    quiet: bool = False


def one_of_each(sources: Sequence[str], destination: str, how: How) -> list[Copy]:
    """The copies of single objects."""
    folder = os.path.isdir(destination)
    if len(sources) > 1 and not folder:
        raise UsageError(f"{destination} is not a folder: several sources are copied to a folder that exists")
    found = []
    for source in sources:
        named_folder = destination.endswith(os.sep)
        path = _path_in(destination, source) if folder or named_folder else destination
        if named_folder and not folder:
            raise UsageError(f"the folder {destination} does not exist")
        path = os.path.realpath(path)
        if not os.path.isdir(parent := os.path.dirname(path)):
            raise NotFoundError(f"the folder {parent} does not exist", path=parent)
        found.append(Copy(source, path, partial(rangeio.open, source, **how.options)))
    taken = [copy.path for copy in found]
    if len({*taken}) < len(taken):
        twice = next(path for path in taken if taken.count(path) > 1)
        raise UsageError(f"two sources would be copied to {twice}")
    return found


def _path_in(folder: str, source: str) -> str:
    scheme, _, place = located(source)
    kind = service_class(scheme)
    name = kind.file_name(place)
    if not name and kind.lists:
        raise UsageError(
            "a source that ends in / is a folder: -r copies all objects below it; to copy one object of that name,"
            " specify the name of its file in DEST"
        )
    if name in ("", ".", ".."):
        raise UsageError(f"{folder} is a folder and the URI contains no file name: specify the name in DEST")
    return os.path.join(folder, name)


def all_below(sources: Sequence[str], destination: str, how: How) -> Iterator[Copy]:
    """The copies of every object below some folders or prefixes, with the folders that their names have."""
    if os.path.lexists(destination) and not os.path.isdir(destination):
        raise UsageError(f"{destination} is not a folder")
    for source in sources:
        scheme, own, prefix = located(source)
        operator = Operator(scheme, **own, **how.options)
        if scheme == "fs" and not os.path.isdir(prefix):
            raise NotFoundError(f"{source!r} is not a folder", path=source)
        prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        empty = True
        for stat in operator.list(prefix):
            empty = False
            name = stat.path[len(prefix) :]
            if name and not name.endswith("/"):  # else a marker, which some tools write for a folder
                yield Copy(
                    operator.uri(stat.path),
                    _below(destination, name),
                    partial(operator.open, stat.path),
                    stat.size,
                )
        if empty:
            uri = operator.uri(prefix)
            raise NotFoundError(f"nothing is below {uri!r}", path=uri)


def _below(folder: str, name: str) -> str:
    """The file of a name that a server tells: never outside of `folder`."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts) or (os.sep != "/" and os.sep in name):
        raise ValueError(f"the name {name!r} is no path below a folder: copy this object by itself")
    return os.path.join(folder, *parts)


@dataclass
class Copies:
    """Copies objects, some at once, and shows progress on the caller's thread."""

    how: How
    copied: list[Copy] = field(default_factory=list)
    _jobs: "queue.SimpleQueue[Copy | None]" = field(default_factory=queue.SimpleQueue)
    _ended: "queue.SimpleQueue[Copy]" = field(default_factory=queue.SimpleQueue)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, copies: Sequence[Copy], ended: Callable[[Copy], None]) -> None:
        """Copy all. `ended` is called for each, on this thread."""
        workers = min(_AT_ONCE, len(copies))
        for copy in [*copies, *[None] * workers]:
            self._jobs.put(copy)
        start = time.monotonic()
        with removed_by_signals(), ExitStack() as stack:
            progress = None if self.how.quiet else stack.enter_context(Progress())
            try:
                for _ in range(workers):
                    start_thread(partial(self._work, _AHEAD // workers))
                while len(self.copied) < len(copies):
                    try:
                        copy = self._ended.get(timeout=_DRAW_S)
                    except queue.Empty:
                        pass
                    else:
                        self.copied.append(copy)
                        if progress:
                            progress.clear()
                        ended(copy)
                    if progress:
                        _draw(progress, copies, len(self.copied), time.monotonic() - start)
            finally:
                self._stop.set()

    def _work(self, ahead: int) -> None:
        while (copy := self._jobs.get()) is not None and not self._stop.is_set():
            start = time.monotonic()
            try:
                self._copy(copy, ahead)
            except Exception as error:
                copy.error = error
            copy.seconds = time.monotonic() - start
            self._ended.put(copy)

    def _copy(self, copy: Copy, ahead: int) -> None:
        with copy.open() as reader:
            if self.how.resume:
                stat = reader.stat()
                copy.size = _nbytes(self.how.range, stat.size)
                if self.how.range is None and is_complete(copy.path, stat):
                    copy.skipped, copy.done = True, copy.size or 0
                    return
                if version := version_of(stat, reader.capability.pin, self.how.range):
                    self._continue(copy, reader, version, stat.mtime_ns, ahead)
                    return
            with whole_file(copy.path) as file:
                self._write(copy, reader, file, self.how.range, ahead)

    def _continue(self, copy: Copy, reader: Reader, version: str, mtime_ns: int | None, ahead: int) -> None:
        start, stop = bounds(self.how.range, reader.size)
        with partial_file(copy.path, version, mtime_ns) as file:
            copy.kept = copy.done = min(file.tell(), stop - start)
            if start + copy.done < stop:
                self._write(copy, reader, file, (start + copy.done, stop), min(ahead, _LOST), _PIECE)

    def _write(
        self,
        copy: Copy,
        reader: Reader,
        file: Any,
        range: RangeArgument | None,
        ahead: int,
        largest: int = PIECE,
    ) -> None:
        for piece, total in pieces(reader, range, ahead, largest):
            if self._stop.is_set():
                return
            copy.size = copy.kept + total if total else copy.size
            file.write(piece)
            copy.done += len(piece)


def _nbytes(range: RangeArgument | None, size: int | None) -> int | None:
    if size is None:
        return None
    start, stop = bounds(range, size)
    return stop - start


def _draw(progress: Progress, copies: Sequence[Copy], ended: int, elapsed: float) -> None:
    done, kept = sum(copy.done for copy in copies), sum(copy.kept for copy in copies)
    total = sum(copy.size or copy.done for copy in copies)
    known = all(copy.size is not None for copy in copies)
    rate = (done - kept) / elapsed if elapsed else 0.0
    words = [f"{size_text(done)} of {size_text(total)}" if known else size_text(done), f"{size_text(rate)}/s"]
    words += [f"{ended} of {len(copies)} files"] * (len(copies) > 1)
    left = (total - done) / rate if known and rate else None
    progress(done / total if total else 0.0, ", ".join(words), left=left)
