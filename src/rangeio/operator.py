"""From a URI and options to Readers: which service, which of the options are its own, and which are the object's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload
from urllib.parse import unquote_to_bytes

import _uring
from rangeio.errors import ConfigInvalidError, Error, closest
from rangeio.ranges import OPEN, Range, Suffix, bounds
from rangeio.reader import OnError, PlanOptions, Reader, check_on_error, chosen_for_call
from rangeio.service import OPTION_NAMES, Service, Stat, check_names
from rangeio.services.local import LocalService
from rangeio.services.memory import MemoryService, MemorySource

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from _uring import Buffer, Reactor

Path = str | os.PathLike[str]
Job = tuple[Path, Range]
# Named here, because inside the class `list` is a method.
Pairs = list[tuple[str, Range]]
Ranges = list[Range]
Buffers: TypeAlias = "list[Buffer]"
Results: TypeAlias = "list[Buffer | Error]"
Outcome: TypeAlias = list[Any]

# Each scheme with what makes its service, and the options that are the service's own.
_SERVICES: dict[str, tuple[Callable[..., Service], list[str]]] = {
    "fs": (LocalService, ["root"]),
    "memory": (MemoryService, ["objects"]),
}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # one letter alone is a drive: C://


class Operator:
    """One storage service, configured; opens any number of its objects. Holds nothing open itself. Any thread.

    scheme: ``"fs"`` with root= (paths are then relative to it and cannot leave it; None for any path), or ``"memory"``
    with objects= (a mapping of path to bytes). The other options are defaults for what is opened: gap, max_merged,
    chunk, concurrent, size, pin, direct (see `Options`). reactor: whose memory to use, the process's own by default.
    Pickles as scheme and options, without the reactor.
    """

    def __init__(self, scheme: str, *, reactor: Reactor | None = None, **options: Any) -> None:
        if scheme not in _SERVICES:
            raise ConfigInvalidError(f"unknown service {scheme!r}; {closest(scheme, list(_SERVICES))}")
        make, names = _SERVICES[scheme]
        check_names(options, names + OPTION_NAMES, f"option of {scheme!r}")
        own = {name: options[name] for name in names if name in options}
        self.scheme = scheme
        self._given = options
        self._reactor = _uring.default_reactor() if reactor is None else reactor
        self._service = make(self._reactor, **own)
        changes = {name: value for name, value in options.items() if name not in own}
        self._options = self._service.defaults.updated(changes)

    @classmethod
    def from_uri(cls, uri: Path, **options: Any) -> Operator:
        """The service of a URI, rooted at its path: ``Operator.from_uri("file:///data").open("a/b")``."""
        scheme, path = split_uri(uri)
        if path and scheme == "fs":
            options.setdefault("root", path)
        elif path:
            raise ConfigInvalidError(f"an Operator of {scheme!r} has no path; give it to open()", path=path)
        return cls(scheme, **options)

    def open(self, path: Path, **options: Any) -> Reader:
        """A Reader of one object, opened now. NotFoundError and the like if that cannot be.

        options: gap, max_merged, chunk, concurrent, size, pin, direct, for this object.
        """
        name = os.fsdecode(path)
        chosen = self._options.updated(options) if options else self._options
        source = self._service.open(name, chosen)
        return Reader(source, chosen, partial(self.open, self._service.address(name), **options))

    def stat(self, path: Path) -> Stat:
        """What is known of one object, without reading it. The same errors as `open`."""
        with self.open(path) as reader:
            return replace(reader.stat(), path=os.fsdecode(path))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """The objects whose path begins with `prefix`, at any depth, sorted; directories are not objects."""
        return self._service.list(prefix)

    @overload
    def read_ranges(
        self, jobs: Iterable[Job], *, on_error: Literal["raise"] = "raise", **options: Unpack[PlanOptions]
    ) -> Buffers: ...
    @overload
    def read_ranges(
        self, jobs: Iterable[Job], *, on_error: Literal["return"], **options: Unpack[PlanOptions]
    ) -> Results: ...
    def read_ranges(
        self, jobs: Iterable[Job], *, on_error: OnError = "raise", **options: Unpack[PlanOptions]
    ) -> Any:
        """One range of each of many objects, in the order given: [(path, range), ...].

        Objects are opened and read many at a time, and a bounded number is open at once. Several ranges of one object
        are read as `Reader.read_ranges` does; `options` are for these. Errors as there, `index` being that of the job.
        """
        check_on_error(on_error)
        pairs = [(os.fsdecode(path), wanted) for path, wanted in jobs]
        outcome = self._read_jobs(pairs, options)
        for index, result in enumerate(outcome):
            if isinstance(result, Error):
                result.index = index
            if isinstance(result, BaseException) and (on_error == "raise" or not isinstance(result, Error)):
                outcome.clear()  # the traceback will hold this frame, and this frame would hold the Buffers
                raise result
        return outcome

    def _read_jobs(self, pairs: Pairs, options: PlanOptions) -> Outcome:
        """The Buffer or the exception of each job. Errors of arguments are raised, before any I/O."""
        chosen = chosen_for_call(self._options, options)
        single, grouped = _grouped(pairs, batch_single=chosen.direct is not True)
        files = self._service.read_files([job for _, job in single], chosen)
        results: dict[int, Any] = dict(zip((index for index, _ in single), files, strict=True))
        for path, indices in grouped.items():
            found = self._read_group(path, [pairs[index][1] for index in indices], options)
            results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(pairs))]

    def _read_group(self, path: str, ranges: Ranges, options: PlanOptions) -> Outcome:
        try:
            with self.open(path) as reader:
                return [*reader.read_ranges(ranges, on_error="return", **options)]
        except Error as error:
            return [copy(error) for _ in ranges]

    def __repr__(self) -> str:
        root = f" {self._given['root']!r}" if self._given.get("root") is not None else ""
        return f"<rangeio.Operator {self.scheme}{root}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.scheme, self._given)


def _restored(scheme: str, options: dict[str, Any]) -> Operator:
    return Operator(scheme, **options)


def _grouped(
    pairs: Pairs, *, batch_single: bool
) -> tuple[list[tuple[int, tuple[str, int, int | None]]], dict[str, list[int]]]:
    """The jobs that are the only one of their object, as (index, (path, start, stop)), and the others by object.

    A Suffix needs the size first, so it goes with the others, as all do without `batch_single`.
    """
    by_path: dict[str, list[int]] = {}
    for index, (path, wanted) in enumerate(pairs):
        by_path.setdefault(path, []).append(index)
        try:
            bounds(wanted, 0 if isinstance(wanted, Suffix) else None)
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"jobs[{index}]: {error}") from None
    single: list[tuple[int, tuple[str, int, int | None]]] = []
    grouped = {}
    for path, indices in by_path.items():
        wanted = pairs[indices[0]][1]
        if len(indices) > 1 or isinstance(wanted, Suffix) or not batch_single:
            grouped[path] = indices
        else:
            start, stop = bounds(wanted, None)
            single.append((indices[0], (path, start, None if stop == OPEN else stop)))
    return single, grouped


def split_uri(uri: Path) -> tuple[str, str]:
    """The service and the path that a URI or plain path means. ConfigInvalidError for what is neither.

    >>> split_uri("data/model.bin")
    ('fs', 'data/model.bin')
    >>> split_uri("file:///tmp/a%20b")
    ('fs', '/tmp/a b')
    >>> split_uri("memory://key")
    ('memory', 'key')
    """
    text = os.fsdecode(uri)
    match = _URI.fullmatch(text)
    if match is None:
        return "fs", text
    scheme, rest = match[1].lower(), match[2]
    if scheme == "memory":
        return scheme, os.fsdecode(unquote_to_bytes(rest))
    if scheme != "file":
        known = "file, memory, or a path without a scheme"
        raise ConfigInvalidError(f"unknown scheme {scheme!r}; known: {known}")
    host, slash, path = rest.partition("/")
    if host.lower() not in ("", "localhost"):
        raise ConfigInvalidError(
            f"a file URI is of this machine, not of {host!r}; write file:///path", path=text
        )
    if "?" in path or "#" in path:
        raise ConfigInvalidError(
            "a file URI has no query and no fragment; write ? as %3F and # as %23", path=text
        )
    decoded = os.fsdecode(unquote_to_bytes(slash + path))
    return "fs", decoded.lstrip("/") if os.name == "nt" else decoded


def open(uri: Path, *, reactor: Reactor | None = None, **options: Any) -> Reader:
    """Open one object for reading ranges: ``rangeio.open("data/model.bin")``.

    uri: a path, or a URI with one of the schemes file:// and memory://. options: those of the object (see `Options`)
    and of its service (see `Operator`), which is worth having once where many objects are opened.

    Raises NotFoundError, PermissionDeniedError, IsDirectoryError, UnsupportedError (a FIFO, socket or character device,
    refused without waiting), ConfigInvalidError for an option or scheme that there is not.
    """
    scheme, path = split_uri(uri)
    own = [name for name in _SERVICES[scheme][1] if name in options]
    check_names(options, own + OPTION_NAMES, f"option of {scheme!r}")
    operator = Operator(scheme, reactor=reactor, **{name: options.pop(name) for name in own})
    return operator.open(path, **options)


def from_bytes(
    data: bytes | bytearray | memoryview, *, reactor: Reactor | None = None, **options: Any
) -> Reader:
    """A Reader of bytes in memory; a copy of them unless they are `bytes`. It pickles with them."""
    kept = bytes(data)
    source = MemorySource(_uring.default_reactor() if reactor is None else reactor, "<bytes>", kept)
    return Reader(source, MemoryService.defaults.updated(options), partial(from_bytes, kept, **options))


def from_fd(fd: int, *, closefd: bool = False, reactor: Reactor | None = None, **options: Any) -> Reader:
    """A Reader of a file that is open already. Its cursor is neither used nor moved.

    closefd: close `fd` with the Reader; otherwise keep it open for as long as the Reader is used. Does not pickle.
    """
    service = LocalService(_uring.default_reactor() if reactor is None else reactor)
    chosen = service.defaults.updated(options)
    return Reader(service.from_fd(fd, chosen, closefd=closefd), chosen)
