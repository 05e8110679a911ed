"""From replies to results: what is asked again, what is cut out of what, and who gets the blame.

Shared by the sync and the async Reader; nothing here waits for anything but what it is given.
"""

import threading
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rangeio.errors import Error, UnexpectedEofError, asked
from rangeio.locks import begin_lock
from rangeio.ranges import OPEN, Checked, Layout, Offsets, cut, lay_out, members

if TYPE_CHECKING:
    from _uring import Buffer

OnError = Literal["raise", "return"]


class Counters:
    """What one Reader has planned and fetched."""

    __slots__ = ("__weakref__", "_counts", "_lock")

    _lock: threading.RLock

    def __init__(self) -> None:
        begin_lock(self)
        self._counts = dict.fromkeys(("ranges", "requests", "bytes_requested", "bytes_fetched"), 0)

    def count(self, replies: "Sequence[Buffer]", results: "Sequence[Buffer]") -> None:
        """Add what came of some requests, and what was cut out of them."""
        fetched, wanted = sum(map(len, replies)), sum(map(len, results))
        with self._lock:
            self._counts["ranges"] += len(results)
            self._counts["requests"] += len(replies)
            self._counts["bytes_fetched"] += fetched
            self._counts["bytes_requested"] += wanted

    def as_dict(self) -> dict[str, int]:
        """A copy."""
        with self._lock:
            return dict(self._counts)


def bytes_of(layout: Layout) -> int:
    """Bytes in all requests, as far as they are known."""
    known = layout.stops < OPEN
    return int(np.where(known, layout.stops - layout.starts, 0).sum())


def hint(prefetch: Callable[[Offsets, Offsets], None], size: int | None, checked: Checked) -> None:
    """Pass on that ranges will be read soon. Where a size that is needed is unknown, nothing is passed on."""
    if size is None and checked.needs_size:
        return
    starts, stops = checked.within(size)
    prefetch(starts, stops - starts)


def ended_early(path: str, offset: int, limit: int, got: int) -> UnexpectedEofError:
    """What `read_exact` raises."""
    return UnexpectedEofError(
        f"{asked(path, offset, limit)}: the object ends after {got} of {limit} bytes",
        path=path,
        offset=offset,
        limit=limit,
    )


def exactly(path: str, origin: int, checked: Checked, results: list[Any], on_error: OnError) -> list[Any]:
    """`results` of the ranges `checked`, where each that is shorter than its range is an UnexpectedEofError.

    origin: where in the object at `path` their offset 0 lies.
    """
    starts, lengths = checked.demands()
    got = np.array([OPEN if isinstance(result, Error) else len(result) for result in results], np.int64)
    for index in np.flatnonzero(got < lengths).tolist():
        error = ended_early(path, origin + int(starts[index]), int(lengths[index]), int(got[index]))
        error.index = index
        if on_error == "raise":
            results.clear()  # the traceback will hold this frame, and this frame would hold the Buffers
            try:
                raise error
            finally:
                del error  # let not the frame hold it, either
        results[index] = error
    return results


def fetch(layout: Layout, send: "Callable[[Layout], list[Buffer]]") -> "tuple[Layout, list[Buffer]]":
    """The replies, and the layout that they are of."""
    try:
        return layout, send(layout)
    except Error as error:
        layout = apart(layout, error)
    return layout, send(layout)


async def fetch_async(
    layout: Layout, send: "Callable[[Layout], Awaitable[list[Buffer]]]"
) -> "tuple[Layout, list[Buffer]]":
    """As `fetch`. Not one coroutine for both: a signal handler that raised before it began would leave it unawaited."""
    try:
        return layout, await send(layout)
    except Error as error:
        layout = apart(layout, error)
    return layout, await send(layout)


def apart(layout: Layout, error: Error) -> Layout:
    """What to ask for after `error`: each range by itself. Raises it where that would not help.

    Errors are decided for each range: a request that merges several may fail for bytes that only one of them, or
    none, wants. So what failed for good is asked again range by range.
    """
    if layout.is_plain or error.status != "permanent":
        if not layout.is_plain and error.index is not None:
            error.index = int((layout.assigned == error.index).argmax())
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: let neither hold the other
    return lay_out(layout.wanted_starts, layout.wanted_stops, gap=None, max_merged=None)


class Cutting:
    """The results of the ranges of a layout, cut out of replies that come in any order."""

    def __init__(
        self, layout: Layout, on_error: OnError, counters: Counters, indices: Sequence[int] | None = None
    ) -> None:
        """indices: under which the ranges are known to the caller, if not by their place in the layout."""
        self.layout = layout
        self._on_error = on_error
        self._counters = counters
        self._indices = indices
        self._groups, self.empty = members(layout)
        self._again: list[int] = []

    def take(self, request: int, reply: "Buffer | Error") -> list[tuple[int, Any]]:
        """(index, result) of each range of one request; none of those that are to be asked again (see `fetch`)."""
        group = self._groups[request]
        if isinstance(reply, Error):
            return self._fail([index for index, _, _ in group], reply)
        pieces = cut(reply, group)
        self._counters.count([reply], pieces)
        return [(self._known(index), piece) for (index, _, _), piece in zip(group, pieces, strict=True)]

    def _fail(self, indices: list[int], error: Error) -> list[tuple[int, Any]]:
        if len(indices) > 1 and error.status == "permanent":
            self._again += indices
            return []
        return [(self._known(index), self._failed(error, self._known(index))) for index in indices]

    def _known(self, index: int) -> int:
        return index if self._indices is None else self._indices[index]

    def _failed(self, error: Error, index: int) -> Error:
        """The failure of one range, of which a request may hold several: raised, or as a value."""
        error = copy(error)
        error.index = index
        if self._on_error == "raise":
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: let neither hold the other
        return error

    def alone(self) -> "Cutting | None":
        """After the last reply: those that failed together, each as a request of its own; None if there are none."""
        if not self._again:
            return None
        starts, stops = self.layout.wanted_starts[self._again], self.layout.wanted_stops[self._again]
        layout = lay_out(starts, stops, gap=None, max_merged=None)
        return Cutting(layout, self._on_error, self._counters, self._again)
