"""From responses to results: which ranges are requested again, how results are cut out, which range an error names.

Shared by the sync and the async Reader. Nothing here waits, except on the awaitables it is passed.
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
    """Counters of the ranges and requests of one Reader."""

    __slots__ = ("__weakref__", "_counts", "_lock")

    _lock: threading.RLock

    def __init__(self) -> None:
        begin_lock(self)
        self._counts = dict.fromkeys(("ranges", "requests", "bytes_requested", "bytes_fetched"), 0)

    def count(self, responses: "Sequence[Buffer]", results: "Sequence[Buffer]") -> None:
        """Add the responses to some requests, and the results cut out of them."""
        fetched, wanted = sum(map(len, responses)), sum(map(len, results))
        with self._lock:
            self._counts["ranges"] += len(results)
            self._counts["requests"] += len(responses)
            self._counts["bytes_fetched"] += fetched
            self._counts["bytes_requested"] += wanted

    def as_dict(self) -> dict[str, int]:
        """A copy of the counters."""
        with self._lock:
            return dict(self._counts)


def bytes_of(layout: Layout) -> int:
    """Total bytes of all requests of known length."""
    known = layout.stops < OPEN
    return int(np.where(known, layout.stops - layout.starts, 0).sum())


def hint(prefetch: Callable[[Offsets, Offsets], None], size: int | None, checked: Checked) -> None:
    """Pass on that ranges will be read soon. Where a size that is needed is unknown, nothing is passed on."""
    if size is None and checked.needs_size:
        return
    starts, stops = checked.within(size)
    prefetch(starts, stops - starts)


def ended_early(path: str, offset: int, limit: int, got: int) -> UnexpectedEofError:
    """The error that `read_exact` raises."""
    return UnexpectedEofError(
        f"{asked(path, offset, limit)}: the object ends after {got} of {limit} bytes",
        path=path,
        offset=offset,
        limit=limit,
    )


def exactly(path: str, origin: int, checked: Checked, results: list[Any], on_error: OnError) -> list[Any]:
    """`results` of the ranges `checked`; a result shorter than its range becomes an UnexpectedEofError.

    origin: the position of their offset 0 in the object at `path`.
    """
    starts, lengths = checked.demands()
    got = np.array([OPEN if isinstance(result, Error) else len(result) for result in results], np.int64)
    for index in np.flatnonzero(got < lengths).tolist():
        error = ended_early(path, origin + int(starts[index]), int(lengths[index]), int(got[index]))
        error.index = index
        if on_error == "raise":
            results.clear()  # the traceback keeps this frame alive, which would keep the Buffers alive
            try:
                raise error
            finally:
                del error  # breaks the cycle of frame and traceback
        results[index] = error
    return results


def fetch(layout: Layout, send: "Callable[[Layout], list[Buffer]]") -> "tuple[Layout, list[Buffer]]":
    """The responses, and the layout they belong to."""
    try:
        return layout, send(layout)
    except Error as error:
        layout = apart(layout, error)
    return layout, send(layout)


async def fetch_async(
    layout: Layout, send: "Callable[[Layout], Awaitable[list[Buffer]]]"
) -> "tuple[Layout, list[Buffer]]":
    """Like `fetch`. Not shared with it: an exception of a signal handler could leave a shared coroutine unawaited."""
    try:
        return layout, await send(layout)
    except Error as error:
        layout = apart(layout, error)
    return layout, await send(layout)


def apart(layout: Layout, error: Error) -> Layout:
    """The layout to request after `error`: each range separately. Raises `error` if that would not help.

    Errors belong to ranges: a merged request may fail because of bytes that only one of its ranges, or none, includes.
    So a permanent failure is retried range by range.
    """
    if layout.is_plain or error.status != "permanent":
        if not layout.is_plain and error.index is not None:
            error.index = int((layout.assigned == error.index).argmax())
        try:
            raise error
        finally:
            del error  # breaks the cycle of frame and traceback
    return lay_out(layout.wanted_starts, layout.wanted_stops, gap=None, max_merged=None)


class Cutting:
    """Cuts the results of the ranges of a layout out of responses, which may come in any order."""

    def __init__(
        self, layout: Layout, on_error: OnError, counters: Counters, indices: Sequence[int] | None = None
    ) -> None:
        """indices: the caller's indices of the ranges, if they differ from their positions in the layout."""
        self.layout = layout
        self._on_error = on_error
        self._counters = counters
        self._indices = indices
        self._groups, self.empty = members(layout)
        self._again: list[int] = []

    def take(self, request: int, response: "Buffer | Error") -> list[tuple[int, Any]]:
        """(index, result) of each range of one request; nothing if they must be requested again (see `fetch`)."""
        group = self._groups[request]
        if isinstance(response, Error):
            return self._fail([index for index, _, _ in group], response)
        pieces = cut(response, group)
        self._counters.count([response], pieces)
        return [(self._known(index), piece) for (index, _, _), piece in zip(group, pieces, strict=True)]

    def _fail(self, indices: list[int], error: Error) -> list[tuple[int, Any]]:
        if len(indices) > 1 and error.status == "permanent":
            self._again += indices
            return []
        return [(self._known(index), self._failed(error, self._known(index))) for index in indices]

    def _known(self, index: int) -> int:
        return index if self._indices is None else self._indices[index]

    def _failed(self, error: Error, index: int) -> Error:
        """Raise or return the failure of one range of a request."""
        error = copy(error)
        error.index = index
        if self._on_error == "raise":
            try:
                raise error
            finally:
                del error  # breaks the cycle of frame and traceback
        return error

    def alone(self) -> "Cutting | None":
        """After the last response: a Cutting with a separate request for each range of a failed merged request.

        None if no merged request failed.
        """
        if not self._again:
            return None
        starts, stops = self.layout.wanted_starts[self._again], self.layout.wanted_stops[self._again]
        layout = lay_out(starts, stops, gap=None, max_merged=None)
        return Cutting(layout, self._on_error, self._counters, self._again)
