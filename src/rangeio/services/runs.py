"""Places of the caller that follow each other, as one: over a network one request in place of many."""

from copy import copy
from typing import Any

import numpy as np

from rangeio.errors import Error
from rangeio.ranges import Offsets
from rangeio.service import Counts


class Runs:
    """Places of which those that follow each other in the list, in the object and in memory are read as one.

    paths: the object of each place, if there are several. As a context manager it gives an Error the index of the first
    place of its run, and lets go of the memory.
    """

    def __init__(self, views: list[memoryview], starts: Offsets, paths: list[str] | None = None) -> None:
        self._count = len(views)
        self._lengths = [len(view) for view in views]
        self._firsts = _firsts(views, self._lengths, starts, paths)
        self.views, self.starts = views, starts
        self.paths = paths or []
        if len(self._firsts) < self._count:
            stops = [*self._firsts[1:], self._count]
            self.views = [_as_one(views[a:b]) for a, b in zip(self._firsts, stops, strict=True)]
            self.starts = starts[self._firsts]
            self.paths = [paths[first] for first in self._firsts] if paths else []

    def counts(self, found: Counts) -> Counts:
        """The result of each place: of a run, cut where it ended. An Error of a run is one for each of its places."""
        if len(self._firsts) == self._count:
            return found
        results: Counts = []
        for result, first, stop in zip(found, self._firsts, [*self._firsts[1:], self._count], strict=True):
            if isinstance(result, Error):
                for index in range(first, stop):
                    results.append(result if index == first else copy(result))
                    results[index].index = index  # type: ignore[union-attr]
            else:
                left: int = result
                for length in self._lengths[first:stop]:
                    results.append(min(left, length))
                    left -= min(left, length)
        return results

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, Error) and error.index is not None:
            error.index = self._firsts[error.index]
        self.views.clear()  # the frames of a traceback hold this list


class _Memory:
    """Memory of several views, which it keeps alive."""

    def __init__(self, views: list[memoryview]) -> None:
        self._views = views
        place = (_address(views[0]), False)
        size = sum(len(view) for view in views)
        self.__array_interface__ = {"data": place, "shape": (size,), "typestr": "|u1", "version": 3}


def _as_one(views: list[memoryview]) -> memoryview:
    return views[0] if len(views) == 1 else np.asarray(_Memory(views)).data


def _address(view: memoryview) -> int:
    interface: dict[str, Any] = np.frombuffer(view, np.uint8).__array_interface__
    place: int = interface["data"][0]
    return place


def _firsts(
    views: list[memoryview], lengths: list[int], starts: Offsets, paths: list[str] | None
) -> list[int]:
    """The index of the first place of each run."""
    sizes = np.array(lengths, np.int64)
    follows = (starts[1:] - starts[:-1] == sizes[:-1]) & (sizes[1:] > 0) & (sizes[:-1] > 0)
    joined = {
        index + 1
        for index in follows.nonzero()[0].tolist()
        if (paths is None or paths[index] == paths[index + 1])
        and _address(views[index]) + lengths[index] == _address(views[index + 1])
    }
    return [index for index in range(len(views)) if index not in joined]
