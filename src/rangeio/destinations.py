"""Many reads into memory of the caller: `read_ranges_into` of a Reader, an AsyncReader and an Operator."""

import os
from collections.abc import Awaitable, Iterable
from contextlib import closing
from copy import copy
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    overload,
    runtime_checkable,
)

from _uring import planning, yield_if_due
from rangeio.errors import Error
from rangeio.options import Options, check_names
from rangeio.ranges import Offsets
from rangeio.reading import Destination
from rangeio.results import OnError, check_on_error
from rangeio.service import Counts, Into, Service, Source

if TYPE_CHECKING:
    from typing_extensions import Unpack

Destinations: TypeAlias = Iterable[tuple[Destination, SupportsIndex]]
Job: TypeAlias = tuple[str | os.PathLike[str], Destination, SupportsIndex]


class IntoOptions(TypedDict, total=False):
    """Options of the Reader that one call may override; see `Options` for their meaning."""

    chunk: int | None
    concurrent: int | None


def _how(options: Options, changes: IntoOptions, on_error: OnError) -> Into:
    """ConfigInvalidError for an unknown name or an invalid value."""
    check_on_error(on_error)
    if changes:
        check_names({**changes}, [*IntoOptions.__annotations__], "option")
        options = options.updated({**changes})
    return Into(options.chunk, options.concurrent, on_error == "return")


class ReadsInto:
    """The part of a Reader that reads into memory of the caller, many ranges at once."""

    __slots__ = ()

    _source: Source
    _options: Options

    @overload
    def read_ranges_into(
        self,
        destinations: Destinations,
        *,
        on_error: Literal["raise"] = "raise",
        **options: "Unpack[IntoOptions]",
    ) -> list[int]: ...
    @overload
    def read_ranges_into(
        self, destinations: Destinations, *, on_error: Literal["return"], **options: "Unpack[IntoOptions]"
    ) -> list[int | Error]: ...
    def read_ranges_into(
        self, destinations: Destinations, *, on_error: OnError = "raise", **options: "Unpack[IntoOptions]"
    ) -> Any:
        """Fill many buffers, [(buffer, offset), ...], all at once. Returns the bytes read into each.

        A count is less than the size of its buffer only at the end of the object; the rest of the buffer is unchanged.
        Every byte goes straight to its place. Nothing is merged, except that ranges that follow each other in the list,
        in the object and in memory are read as one.

        Refused before any I/O, with the index in the message: TypeError if a buffer is read-only or holds Python
        objects or pointers, BufferError if it is not C-contiguous, ValueError if two overlap, or a negative offset.
        Empty buffers are fine, and so are ranges that overlap in the object.

        on_error: as for `read_ranges`. When the call ends, however it ends, nothing writes to the buffers any more;
        after an error the content of all of them is undefined, with ``"return"`` of those that failed. options: chunk
        and concurrent for this call; local files use pieces of the core.
        """
        how = _how(self._options, options, on_error)
        views, starts = planning.destinations(destinations, "destinations")
        try:
            return self._source.fetch_into(views, starts, how)
        finally:
            views.clear()  # the traceback of an error holds this frame, which must not hold the memory


class AwaitedReadsInto:
    """The same of an AsyncReader."""

    __slots__ = ()

    _options: Options
    _after_opening: Any

    @overload
    def read_ranges_into(
        self,
        destinations: Destinations,
        *,
        on_error: Literal["raise"] = "raise",
        **options: "Unpack[IntoOptions]",
    ) -> Awaitable[list[int]]: ...
    @overload
    def read_ranges_into(
        self, destinations: Destinations, *, on_error: Literal["return"], **options: "Unpack[IntoOptions]"
    ) -> Awaitable[list[int | Error]]: ...
    def read_ranges_into(
        self, destinations: Destinations, *, on_error: OnError = "raise", **options: "Unpack[IntoOptions]"
    ) -> Any:
        """Fill many buffers, [(buffer, offset), ...]. One await. See `Reader.read_ranges_into`.

        A cancellation starts no more reads, and ends when nothing writes to the buffers any more, as of `read_into`.
        """
        how = _how(self._options, options, on_error)
        views, starts = planning.destinations(destinations, "destinations")
        return _filled(self._after_opening, views, starts, how)


async def _filled(after_opening: Any, views: list[memoryview], starts: Offsets, how: Into) -> Counts:
    try:
        found: Counts = await after_opening(lambda source: source.fetch_into_async(views, starts, how))
        return found
    finally:
        views.clear()


@runtime_checkable
class ReadsIntoMany(Protocol):
    """A Service that reads from several of its objects at once. Each failure is a result, whatever `how` says."""

    def read_into_many(
        self, paths: list[str], views: list[memoryview], starts: Offsets, how: Into, options: Options
    ) -> Counts:
        """Fill the views, each from its start in the object of its path."""

    def read_into_many_async(
        self, paths: list[str], views: list[memoryview], starts: Offsets, how: Into, options: Options
    ) -> Awaitable[Counts]:
        """The same, awaited."""


class JobsInto:
    """Reads from many objects into memory, with checked arguments. A failure is the result of its job.

    If the service has no way of its own, one object is read after the other, all ranges of an object at once.
    """

    def __init__(
        self, jobs: Iterable[Job], options: Options, changes: IntoOptions, on_error: OnError
    ) -> None:
        self._how = _how(options, changes, on_error)._replace(each=True)
        self._options = options
        self._paths: list[str] = []
        places = []
        for index, job in enumerate(jobs):
            try:
                path, destination, offset = job
                self._paths.append(os.fsdecode(path))
            except (TypeError, ValueError):
                what = type(job).__name__  # only the type: the value may hold a URL with a signature
                raise TypeError(
                    f"jobs[{index}]: a {what} is not a job; pass (path, buffer, offset)"
                ) from None
            places.append((destination, offset))
        self._views, self._starts = planning.destinations(places, "jobs")

    def read(self, service: Service) -> Counts:
        """The count or the Error of each job."""
        try:
            if isinstance(service, ReadsIntoMany):
                return service.read_into_many(
                    self._paths, self._views, self._starts, self._how, self._options
                )
            found: dict[int, Any] = {}
            for path, indices in self._by_path().items():
                try:
                    with closing(service.open(path, self._options)) as source:
                        counts = source.fetch_into(*self._part(indices), self._how)
                except Error as error:
                    counts = [copy(error) for _ in indices]
                found.update(zip(indices, counts, strict=True))
            return [found[index] for index in range(len(self._paths))]
        finally:
            self._views.clear()

    async def read_async(self, service: Service) -> Counts:
        """The same, awaited."""
        try:
            await yield_if_due()
            if isinstance(service, ReadsIntoMany):
                return await service.read_into_many_async(
                    self._paths, self._views, self._starts, self._how, self._options
                )
            found: dict[int, Any] = {}
            for path, indices in self._by_path().items():
                try:
                    with closing(service.open(path, self._options)) as source:
                        counts = await source.fetch_into_async(*self._part(indices), self._how)
                except Error as error:
                    counts = [copy(error) for _ in indices]
                found.update(zip(indices, counts, strict=True))
            return [found[index] for index in range(len(self._paths))]
        finally:
            self._views.clear()

    def _by_path(self) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for index, path in enumerate(self._paths):
            groups.setdefault(path, []).append(index)
        return groups

    def _part(self, indices: list[int]) -> tuple[list[memoryview], Offsets]:
        return [self._views[index] for index in indices], self._starts[indices]
