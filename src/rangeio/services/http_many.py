"""Reads one range of each of many objects over HTTP, with one engine."""

from collections.abc import Callable, Sequence
from typing import Any

from rangeio.errors import Error
from rangeio.http.connection_pool import HeldConnections
from rangeio.ranges import OPEN
from rangeio.service import FileResults
from rangeio.services.http_options import CONCURRENT
from rangeio.services.http_source import HttpSource


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
