"""Jobs of one call over many objects: their arguments, by object, and what came of each."""

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

from rangeio.errors import Error
from rangeio.ranges import OPEN, Range, Suffix, bounds
from rangeio.results import OnError

Path: TypeAlias = str | os.PathLike[str]
Job: TypeAlias = tuple[Path, Range]
Pairs: TypeAlias = list[tuple[str, Range]]
Outcome: TypeAlias = list[Any]
Groups: TypeAlias = dict[str, list[int]]
Single: TypeAlias = list[tuple[int, tuple[str, int, int | None]]]


def judged(outcome: Outcome, on_error: OnError) -> Outcome:
    """`outcome` with the index of each Error set; raises the first failure if `on_error` is "raise"."""
    for index, result in enumerate(outcome):
        if isinstance(result, Error):
            result.index = index
        if isinstance(result, BaseException) and (on_error == "raise" or not isinstance(result, Error)):
            outcome.clear()  # the traceback keeps this frame alive, which would keep the Buffers alive
            try:
                raise result
            finally:
                del result  # breaks the cycle of frame and traceback
    return outcome


def paired(jobs: Iterable[Job]) -> Pairs:
    """The jobs with their paths as str. TypeError if an item is not a (path, range) pair."""
    pairs: Pairs = []
    for index, job in enumerate(jobs):
        try:
            path, wanted = job
            pairs.append((os.fsdecode(path), wanted))
        except (TypeError, ValueError):
            what = type(job).__name__  # only the type: the value may hold a URL with a signature
            raise TypeError(f"jobs[{index}]: a {what} is not a job; pass (path, range)") from None
    return pairs


def grouped(pairs: Pairs, *, batch_single: bool) -> tuple[Single, Groups]:
    """Split the jobs: objects with one job as (index, (path, start, stop)), other objects as path to job indices.

    A Suffix has no start before the size is known, so it counts as one of the others. Without `batch_single` all do.
    """
    by_path: dict[str, list[int]] = {}
    for index, (path, wanted) in enumerate(pairs):
        by_path.setdefault(path, []).append(index)
        try:
            bounds(wanted, 0 if isinstance(wanted, Suffix) else None)
        except (TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"jobs[{index}]: {error}") from None
    single: Single = []
    several = {}
    for path, indices in by_path.items():
        wanted = pairs[indices[0]][1]
        if len(indices) > 1 or isinstance(wanted, Suffix) or not batch_single:
            several[path] = indices
        else:
            start, stop = bounds(wanted, None)
            single.append((indices[0], (path, start, None if stop == OPEN else stop)))
    return single, several
