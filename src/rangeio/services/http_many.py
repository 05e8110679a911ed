"""Reads from many objects over HTTP, with one engine."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

from _uring.errors import without_frames
from rangeio.errors import Error
from rangeio.http.connection_pool import HeldConnections
from rangeio.http.range_read import RangeRead
from rangeio.options import Options
from rangeio.ranges import OPEN, Offsets
from rangeio.service import Counts, FileResults, Into
from rangeio.services.http_options import CONCURRENT
from rangeio.services.http_source import HttpSource
from rangeio.services.runs import Runs


def ranges_of_many(
    opened: Callable[[str], HttpSource], jobs: Sequence[tuple[str, int, int | None]]
) -> FileResults:
    """The results of `Service.read_files`. opened: opens the path of a job; its Error is the result of that job."""
    sources: list[HttpSource] = []
    found: dict[int, Any] = {}
    try:
        reads = []
        for index, (path, start, stop) in enumerate(jobs):
            try:
                source = opened(path)
            except Error as error:
                found[index] = error
                continue
            sources.append(source)
            reads.append(source._read(start, (OPEN if stop is None else stop) - start, index))
        found |= (
            dict(sources[0]._each(HeldConnections(), [*reads], None, CONCURRENT, False, []))
            if sources
            else {}
        )
        return [found[index] for index in range(len(jobs))]
    finally:
        for source in sources:
            source.close()


class ManyInto:
    """The part of a Service over HTTP that reads from many objects into memory of the caller."""

    open: Any

    def opening(self, options: Options) -> Callable[[str], HttpSource]:
        """What opens an object by its path, for a read over the network."""
        return partial(self.open, options=options)

    def read_into_many(
        self, paths: list[str], views: list[memoryview], starts: Offsets, how: Into, options: Options
    ) -> Counts:
        """See `ReadsIntoMany`."""
        with Runs(views, starts, paths) as runs, _Opened(self.opening(options)) as opened:
            reads = opened.reads(runs.paths, runs.views, runs.starts)
            found = opened.one_of_them.all_landed(reads, how) if reads else []
            return runs.counts(opened.complete(found))

    async def read_into_many_async(
        self, paths: list[str], views: list[memoryview], starts: Offsets, how: Into, options: Options
    ) -> Counts:
        """The same, awaited."""
        with Runs(views, starts, paths) as runs, _Opened(self.opening(options)) as opened:
            reads = opened.reads(runs.paths, runs.views, runs.starts)
            found = await opened.one_of_them.all_landed_async(reads, how) if reads else []
            return runs.counts(opened.complete(found))


class _Opened:
    """The objects of many reads, each opened once, and the reads that failed with them."""

    def __init__(self, open_source: Callable[[str], HttpSource]) -> None:
        self._open = open_source
        self._sources: dict[str, HttpSource | Error] = {}
        self._failed: dict[int, Error] = {}

    def reads(self, paths: list[str], views: list[memoryview], starts: Offsets) -> list[RangeRead]:
        reads: list[RangeRead] = []
        for index, (path, view, start) in enumerate(zip(paths, views, starts.tolist(), strict=True)):
            source = self._source(path)
            if isinstance(source, Error):
                self._failed[index] = copy(source)
            else:
                reads.append(source._read(start, len(view), len(reads), view))
        return reads

    def _source(self, path: str) -> HttpSource | Error:
        if path not in self._sources:
            try:
                self._sources[path] = self._open(path)
            except Error as error:
                without_frames(error)  # they hold the caller's memory
                self._sources[path] = error
        return self._sources[path]

    @property
    def one_of_them(self) -> HttpSource:
        """One of the objects: its engine makes all reads."""
        return next(source for source in self._sources.values() if not isinstance(source, Error))

    def complete(self, found: Counts) -> Counts:
        """The results of all reads, with those that failed before."""
        landed = iter(found)
        return [
            self._failed[index] if index in self._failed else next(landed)
            for index in range(len(found) + len(self._failed))
        ]

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources.values():
            if not isinstance(source, Error):
                source.close()
