"""`Operator`, `open` and their variants: from a URI and options to the service, its own options and the object's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import _uring
from rangeio.async_reader import AsyncReader
from rangeio.awaitables import InTurns
from rangeio.destinations import IntoOptions, JobsInto
from rangeio.destinations import Job as JobInto
from rangeio.errors import (
    ClosedError,
    ConfigInvalidError,
    Error,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    UnsupportedError,
)
from rangeio.in_flight import RequestWindow
from rangeio.jobs import Groups, Job, Outcome, Pairs, Path, Single, grouped, judged, paired
from rangeio.options import OPTION_NAMES, Options, check_names
from rangeio.pickled import check_functions, lost_of
from rangeio.ranges import OPEN, Range
from rangeio.reader import PlanOptions, Reader, chosen_for_call
from rangeio.results import OnError, check_on_error
from rangeio.service import ListsAwaited, Presigns, Service, Stat
from rangeio.services.registry import located, service_class

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from _uring import Buffer, Reactor
    from _uring.waiters import Waiter
    from rangeio.option_types import ObjectOptions, OpenOptions

# Defined here, because inside the class `list` is a method.
Ranges = list[Range]
Buffers: TypeAlias = "list[Buffer]"
Results: TypeAlias = "list[Buffer | Error]"
Counts: TypeAlias = list[int]
Ends: TypeAlias = list[Callable[[], None]]
Outcomes: TypeAlias = list[int | Error]

_NOTHING_THERE = (NotFoundError, IsDirectoryError, NotDirectoryError)
# Default number of files that an async read of many objects has open at a time.
_FILES_AT_ONCE = 32


class Operator:
    """One configured storage service; opens any number of its objects. Thread-safe.

    Over a network it keeps connections, until `close` or the end of a ``with`` or ``async with``; of files and memory
    it holds nothing open, and need not be closed. What it has opened lives on: Readers have their own `close`.

    scheme: ``"fs"`` with root= (paths are relative to it and cannot leave it; None allows any path), ``"memory"`` with
    objects= (a mapping of path to bytes), or that of a service over a network, such as ``"s3"`` with bucket= or
    ``"az"`` with container=: the classes in `rangeio.services` document their options, and `rangeio --help` lists the
    schemes. The other options are defaults for the opened objects: gap, max_merged, chunk, concurrent, size, pin,
    direct (see `Options`). reactor: provides memory and I/O; default: the reactor of the process. Pickles as scheme and
    options, without the reactor and without secrets; a callable as `credentials` is pickled.
    """

    def __init__(
        self, scheme: str, *, reactor: Reactor | None = None, **options: Unpack[OpenOptions]
    ) -> None:
        kind: Any = service_class(scheme)  # not type[Service]: a Protocol does not say what __init__ takes
        names = kind.option_names
        given: dict[str, Any] = {**options}
        check_names(given, [*names, *OPTION_NAMES, *kind.object_option_names], f"option of {scheme!r}")
        own = {name: given[name] for name in names if name in given}
        self.scheme = scheme
        self._given = given
        self._lost: tuple[str, ...] = ()  # options of the Operator whose pickle this is made of
        self._reactor = _uring.default_reactor() if reactor is None else reactor
        self._service: Service = kind(self._reactor, **own)
        changes = {name: value for name, value in given.items() if name not in own}
        self._options = self._service.defaults.updated(changes, kind.object_option_names)
        self._parent: Operator | None = None  # of `with_options`
        # What is left to do at the end; `close` takes it out, which one thread or signal handler succeeds in.
        self._at_end: Ends = [self._service.keep_nothing]

    @classmethod
    def from_uri(cls, uri: Path, **options: Unpack[OpenOptions]) -> Operator:
        """The service of a URI, rooted at its path: ``Operator.from_uri("file:///data").open("a/b")``."""
        scheme, own, path = located(uri)
        if path and "root" in service_class(scheme).option_names:
            own["root"] = path
        elif path:
            raise ConfigInvalidError(
                f"an Operator of {scheme!r} has no path; pass the path to open()", path=path
            )
        return cls(scheme, **{**own, **options})

    def open(self, path: Path, **options: Unpack[ObjectOptions]) -> Reader:
        """Open one object now and return its Reader. NotFoundError and other errors if that fails.

        options: gap, max_merged, chunk, concurrent, size, pin, direct, for this object.
        """
        name = os.fsdecode(path)
        chosen = self._chosen(options)
        source = self._service.open(name, chosen)
        return Reader(source, chosen, partial(self.open, self._service.address(name), **options))

    def open_async(self, path: Path, **options: Unpack[ObjectOptions]) -> AsyncReader:
        """An AsyncReader of one object, used with or without ``async with``. Its first use opens the object, on any
        loop.

        The call raises ConfigInvalidError for wrong options; opening raises NotFoundError and other errors.
        """
        name = os.fsdecode(path)
        chosen = self._chosen(options)
        return AsyncReader(
            partial(self._service.open, self._service.absolute(name), chosen),
            chosen,
            self._service.shown(name),
            partial(self.open_async, self._service.address(name), **options),
        )

    @property
    def closed(self) -> bool:
        """Whether it is closed, so that its calls raise ClosedError."""
        return not self._at_end or (self._parent is not None and self._parent.closed)

    def close(self) -> None:
        """Refuse new calls: they raise ClosedError. A second call does nothing. Does not block.

        Readers, AsyncReaders and listings that it has made stay usable, and calls in flight complete. Idle connections
        are closed now if none of these uses them, else with the last of them. Closing it also closes the Operators that
        `with_options` made of it; closing one of those leaves it open.
        """
        with suppress(IndexError):  # it is closed
            self._at_end.pop()()

    async def aclose(self) -> None:
        """Like `close`, awaited."""
        self.close()
        await _uring.yield_if_due()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await _uring.yield_if_due()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(
                f"this Operator of {self.scheme!r} is closed; what it has opened can still be read"
            )

    def _chosen(self, options: Mapping[str, object]) -> Options:
        self._check_open()
        for name in options:
            if name in self._service.option_names:
                raise ConfigInvalidError(
                    f"{name!r} is an option of the whole Operator, not of one object in it"
                )
        own_names = self._service.object_option_names
        chosen: Options = self._options.updated({**options}, own_names) if options else self._options
        if chosen.version is not None and not self._service.versions:
            raise ConfigInvalidError(
                f"{self.scheme!r} has no versions of objects, so version= is not supported"
            )
        return chosen

    def stat(self, path: Path, **options: Unpack[ObjectOptions]) -> Stat:
        """Metadata of one object, without reading it. Same options and errors as `open`.

        Its `path` is the given path; of a URL without login and query.
        """
        with self.open(path, **options) as reader:
            stat = reader.stat()
        return replace(stat, path=self._service.name(os.fsdecode(path)))

    def exists(self, path: Path, **options: Unpack[ObjectOptions]) -> bool:
        """Whether there is an object at `path`; a directory is none. Same options as `open`.

        Raises any error but that there is none, such as PermissionDeniedError.
        """
        try:
            self.stat(path, **options)
        except _NOTHING_THERE:
            return False
        return True

    def exists_async(self, path: Path, **options: Unpack[ObjectOptions]) -> Awaitable[bool]:
        """Like `exists`, awaited."""
        return self._exists(self.open_async(path, **options))

    async def _exists(self, reader: AsyncReader) -> bool:
        try:
            async with reader:
                await reader.stat()
        except _NOTHING_THERE:
            return False
        return True

    def diagnosis(self) -> Iterator[tuple[str, str]]:
        """What the service found on this machine, for display, as pairs of a topic and a text: its endpoint, which
        credentials it uses and where they were found, but nothing of them. Raises the error of credentials that cannot
        be used. Sends no request to the service.
        """
        self._check_open()
        return iter(self._service.diagnosis())

    def list(self, prefix: str = "", delimiter: str | None = None) -> Iterator[Stat]:
        """The objects whose path begins with `prefix`, at any depth, in the service's order: sorted by path.

        Directories are not objects. delimiter: list only up to the next delimiter after `prefix`; deeper objects appear
        once, as their common prefix with `is_prefix` set. `list("data/", "/")` lists one directory. UnsupportedError if
        the service has no listing (http). Nothing if no path begins with `prefix`, on every service; NotFoundError if
        there is no such bucket, container, repository or root. Cost over a network: one request per 1,000 objects.

        Local files: lists regular files and links to them; links to directories are not followed. The listing omits
        files and directories that are deleted meanwhile, dangling links and circular links. The iteration raises
        PermissionDeniedError at a directory that it cannot read. Names that are not UTF-8 are decoded by `os.fsdecode`.
        """
        self._check_open()
        return self._service.list(prefix, delimiter or None, self._options)

    def list_async(self, prefix: str = "", delimiter: str | None = None) -> AsyncIterator[Stat]:
        """Like `list`, for ``async for``, on any loop. Local directories are read on the loop's thread."""
        self._check_open()
        if isinstance(self._service, ListsAwaited):
            return self._service.list_async(prefix, delimiter or None, self._options)
        return InTurns(self._service.list(prefix, delimiter or None, self._options))

    @property
    def options(self) -> dict[str, Any]:
        """The options with which it was made, without secrets."""
        return {**self._service.without_secrets(self._given)}

    def with_options(self, **options: Any) -> Operator:
        """The same service with other defaults for its objects. It shares connections and credentials with this one,
        and is closed with it.
        """
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._options = self._chosen(options)
        made._given = {**self._given, **options}
        made._parent, made._at_end = self, [_nothing]
        return made

    def uri(self, path: Path) -> str:
        """The URI of a path in this service, which `rangeio.open` accepts; of a local file its path. For display:
        without login and query.
        """
        return self._service.uri(os.fsdecode(path))

    def presign(self, path: Path, expires: float | timedelta = 3600, *, version: str | None = None) -> str:
        """A URL with which anybody can read one object for `expires` seconds (at most a week). Sends no request, but
        may wait for credentials.

        The URL is a secret. It expires earlier if the signing credentials do. Does not check whether the object exists.
        UnsupportedError for services that have no signed URLs.
        """
        if not isinstance(self._service, Presigns):
            raise UnsupportedError(
                f"{self.scheme!r} does not support signed URLs",
                path=self._service.shown(os.fsdecode(path)),
            )
        return self._service.presign(os.fsdecode(path), expires, self._chosen({"version": version}))

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
        """Read one range of each of many objects: [(path, range), ...]; one Buffer per job, in the given order.

        Opens and reads a bounded number of objects at a time. Several ranges of one object are read like
        `Reader.read_ranges`, with `options`. Errors are the same, with `index` set to the index of the job.
        """
        check_on_error(on_error)
        pairs = paired(jobs)
        return judged(self._read_jobs(pairs, options), on_error)

    @overload
    def read_ranges_async(
        self, jobs: Iterable[Job], *, on_error: Literal["raise"] = "raise", **options: Unpack[PlanOptions]
    ) -> Awaitable[Buffers]: ...
    @overload
    def read_ranges_async(
        self, jobs: Iterable[Job], *, on_error: Literal["return"], **options: Unpack[PlanOptions]
    ) -> Awaitable[Results]: ...
    def read_ranges_async(
        self, jobs: Iterable[Job], *, on_error: OnError = "raise", **options: Unpack[PlanOptions]
    ) -> Any:
        """Like `read_ranges`, awaited. Reads `concurrent` objects at a time (default 32)."""
        check_on_error(on_error)
        chosen = chosen_for_call(self._options, options)
        pairs = paired(jobs)
        single, several = grouped(pairs, batch_single=True)
        return self._read_jobs_async(pairs, single, several, chosen, options, on_error)

    async def _read_jobs_async(
        self,
        pairs: Pairs,
        single: Single,
        several: Groups,
        chosen: Options,
        options: PlanOptions,
        on_error: OnError,
    ) -> Outcome:
        self._check_open()
        results: dict[int, Any] = {}
        window = RequestWindow(
            lambda index, waiter: self._begin(*single[index][1], chosen, waiter),
            len(single),
            _uring.yield_if_due,
            depth=chosen.concurrent or _FILES_AT_ONCE,
        )
        while (completed := await window.next()) is not None:
            results[single[completed[0]][0]] = completed[1]
        for path, indices in several.items():
            found = await self._read_group_async(path, [pairs[index][1] for index in indices], options)
            results.update(zip(indices, found, strict=True))
        return judged([results[index] for index in range(len(pairs))], on_error)

    def _begin(self, path: str, start: int, stop: int | None, options: Options, waiter: Waiter) -> None:
        source = self._service.open(path, options)
        try:
            source.begin_at(start, (OPEN if stop is None else stop) - start, waiter)
        finally:
            source.close()  # the read in flight completes

    async def _read_group_async(self, path: str, ranges: Ranges, options: PlanOptions) -> Outcome:
        try:
            async with self.open_async(path) as reader:
                return [*await reader.read_ranges(ranges, on_error="return", **options)]
        except Error as error:
            return [copy(error) for _ in ranges]

    def _read_jobs(self, pairs: Pairs, options: PlanOptions) -> Outcome:
        """The Buffer or the exception of each job. Argument errors are raised, before any I/O."""
        self._check_open()
        chosen = chosen_for_call(self._options, options)
        single, several = grouped(pairs, batch_single=chosen.direct is not True)
        files = self._service.read_files([job for _, job in single], chosen)
        results: dict[int, Any] = dict(zip((index for index, _ in single), files, strict=True))
        for path, indices in several.items():
            found = self._read_group(path, [pairs[index][1] for index in indices], options)
            results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(pairs))]

    def _read_group(self, path: str, ranges: Ranges, options: PlanOptions) -> Outcome:
        try:
            with self.open(path) as reader:
                return [*reader.read_ranges(ranges, on_error="return", **options)]
        except Error as error:
            return [copy(error) for _ in ranges]

    @overload
    def read_ranges_into(
        self, jobs: Iterable[JobInto], *, on_error: Literal["raise"] = "raise", **options: Unpack[IntoOptions]
    ) -> Counts: ...
    @overload
    def read_ranges_into(
        self, jobs: Iterable[JobInto], *, on_error: Literal["return"], **options: Unpack[IntoOptions]
    ) -> Outcomes: ...
    def read_ranges_into(
        self, jobs: Iterable[JobInto], *, on_error: OnError = "raise", **options: Unpack[IntoOptions]
    ) -> Any:
        """Fill many buffers from many objects: [(path, buffer, offset), ...]; the bytes read into each.

        As `Reader.read_ranges_into`, with `index` set to the index of the job. Over a network all objects are read at
        once; local files one after the other, all ranges of a file at once.
        """
        self._check_open()
        return judged(JobsInto(jobs, self._options, options, on_error).read(self._service), on_error)

    @overload
    def read_ranges_into_async(
        self, jobs: Iterable[JobInto], *, on_error: Literal["raise"] = "raise", **options: Unpack[IntoOptions]
    ) -> Awaitable[Counts]: ...
    @overload
    def read_ranges_into_async(
        self, jobs: Iterable[JobInto], *, on_error: Literal["return"], **options: Unpack[IntoOptions]
    ) -> Awaitable[Outcomes]: ...
    def read_ranges_into_async(
        self, jobs: Iterable[JobInto], *, on_error: OnError = "raise", **options: Unpack[IntoOptions]
    ) -> Any:
        """Like `read_ranges_into`, awaited. Cancelled as `AsyncReader.read_ranges_into` is."""
        return self._read_into(JobsInto(jobs, self._options, options, on_error), on_error)

    async def _read_into(self, jobs: JobsInto, on_error: OnError) -> Outcome:
        self._check_open()
        return judged(await jobs.read_async(self._service), on_error)

    def __repr__(self) -> str:
        root = self._service.without_secrets(self._given).get("root")
        root = "" if root is None else f" {root!r}"
        return f"<rangeio.Operator {self.scheme}{root}>"

    def __reduce__(self) -> tuple[Any, ...]:
        kept = self.options
        check_functions(kept)
        return _restored, (self.scheme, kept, tuple(sorted({*self._lost, *lost_of(self._given, kept)})))


def _nothing() -> None:
    """What is left to do for an Operator that shares the connections of another one."""


def _restored(scheme: str, options: dict[str, Any], lost: tuple[str, ...] = ()) -> Operator:
    operator = Operator(scheme, **options)
    if lost:
        operator._lost = lost
        operator._service.lacks(lost)
    return operator


def open(uri: Path, *, reactor: Reactor | None = None, **options: Unpack[OpenOptions]) -> Reader:
    """Open one object for reading ranges: ``rangeio.open("data/model.bin")``.

    uri: a path, or a URI such as ``https://example.org/data``, ``s3://bucket/key`` or ``hdfs:///path`` (keys and paths
    as they are, not percent-encoded); `rangeio --help` lists the schemes. options: those of the object (see `Options`)
    and of its service (see `Operator`). To open many objects of one service, create one Operator.

    Raises NotFoundError, PermissionDeniedError, IsDirectoryError, UnsupportedError (a FIFO, socket or character device,
    refused without waiting), ConfigInvalidError for an unknown option or scheme.
    """
    operator, path, rest = _operator_for(uri, reactor, options)
    return operator.open(path, **rest)


def open_async(uri: Path, *, reactor: Reactor | None = None, **options: Unpack[OpenOptions]) -> AsyncReader:
    """Like `open`, for await: ``async with rangeio.open_async("data/model.bin") as r: await r.read_at(0, 8)``.

    ``async with`` opens the object; without it, the first use does. That also raises the errors of opening. This call
    raises the errors of options.
    """
    operator, path, rest = _operator_for(uri, reactor, options)
    return operator.open_async(path, **rest)


def _operator_for(
    uri: Path, reactor: Reactor | None, given: Mapping[str, object]
) -> tuple[Operator, str, dict[str, Any]]:
    """The service of a URI, the path in it, and the options that are the object's."""
    scheme, located_by, path = located(uri)
    kind = service_class(scheme)
    options: dict[str, Any] = {**given}
    if located_by and (twice := sorted({*located_by, "root"} & {*options})):
        raise ConfigInvalidError(
            f"the URI contains the {', '.join(located_by)} and the whole path: it leaves no place for {twice[0]}=;"
            " pass that to an Operator"
        )
    known = [name for name in kind.option_names if not located_by or name not in (*located_by, "root")]
    check_names(options, [*known, *OPTION_NAMES, *kind.object_option_names], f"option of {scheme!r}")
    own = {name: options.pop(name) for name in known if name in options}
    operator = Operator(scheme, reactor=reactor, **located_by, **own)
    operator._service.keep_nothing()
    return operator, path, options
