"""What fsspec's `start` and `end` mean, in one request; and how ranges of many files are sorted into files."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from rangeio.ranges import Range, Suffix

Cut: TypeAlias = Callable[[Any, Callable[[], int]], bytes]


def wanted(start: int | None, end: int | None) -> tuple[Range, Cut]:
    """The range to read, and a function that cuts the result out of it. The second argument of that function returns
    the size of the object, which the response has told.

    As with a slice of `bytes`: None is an end of the object, negative numbers count from its end.
    """
    first = 0 if start is None else start
    if first < 0:
        return Suffix(-first), lambda data, size: _of_suffix(data, end, size)
    if end is None or end < 0:
        return (first, None), lambda data, size: bytes(data)[:end]
    return (first, max(first, end)), lambda data, size: bytes(data)


def _of_suffix(data: Any, end: int | None, size: Callable[[], int]) -> bytes:
    if end is None or end < 0:
        return bytes(data)[:end]
    return bytes(data)[: max(0, end - (size() - len(data)))]


def is_plain(start: int | None, end: int | None) -> bool:
    """Whether nothing needs to be cut."""
    return (start or 0) >= 0 and (end is None or end >= 0)


def spread(paths: Sequence[str], starts: Any, ends: Any) -> list[tuple[str, int | None, int | None]]:
    """The arguments of `cat_ranges`, one triple for each range. ValueError if their numbers differ."""
    count = len(paths)
    firsts = list(starts) if _is_many(starts) else [starts] * count
    lasts = list(ends) if _is_many(ends) else [ends] * count
    if not len(firsts) == len(lasts) == count:
        raise ValueError(f"{count} paths, {len(firsts)} starts and {len(lasts)} ends: there must be one each")
    return [
        (path, None if start is None else int(start), None if end is None else int(end))
        for path, start, end in zip(paths, firsts, lasts, strict=True)
    ]


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__")


def by_path(jobs: Sequence[tuple[str, Any, Any]]) -> dict[str, list[int]]:
    """The indices of the jobs of each path."""
    found: dict[str, list[int]] = {}
    for index, (path, _, _) in enumerate(jobs):
        found.setdefault(path, []).append(index)
    return found
