"""From responses to results: which ranges are requested again, how results are cut out, which range an error names.

Shared by the sync and the async Reader. Nothing here waits, except on the awaitables it is passed.
"""

import threading
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from _uring import planning
from rangeio.errors import ConfigInvalidError, Error, UnexpectedEofError, asked
from rangeio.events import told_ranges
from rangeio.locks import begin_lock
from rangeio.notebook import Stats
from rangeio.options import Options
from rangeio.ranges import Checked, Layout, Offsets, lay_out

if TYPE_CHECKING:
    from _uring import Buffer

OnError = Literal["raise", "return"]


def check_on_error(on_error: OnError) -> OnError:
    """Return `on_error`; ConfigInvalidError unless it is "raise" or "return"."""
    if on_error not in ("raise", "return"):
        raise ConfigInvalidError(f"on_error must be 'raise' or 'return', not {on_error!r}")
    return on_error


class Counters:
    """Counters of the ranges and requests of one Reader."""

    __slots__ = ("__weakref__", "_counts", "_lock")

    _lock: threading.RLock

    def __init__(self) -> None:
        begin_lock(self)
        self._counts = dict.fromkeys(("ranges", "requests", "bytes_requested", "bytes_fetched"), 0)

    def count(self, responses: "list[Buffer]", results: "list[Buffer]") -> None:
        """Add what came of some requests, and what was cut out of them."""
        fetched = planning.total_bytes(responses)
        wanted = fetched if results is responses else planning.total_bytes(results)
        with self._lock:
            self._counts["ranges"] += len(results)
            self._counts["requests"] += len(responses)
            self._counts["bytes_fetched"] += fetched
            self._counts["bytes_requested"] += wanted

    def add(self, other: "Counters") -> None:
        """Add what another one has counted."""
        counted = other.as_dict()
        with self._lock:
            for name, count in counted.items():
                self._counts[name] += count

    def as_dict(self) -> dict[str, int]:
        """A copy of the counters."""
        with self._lock:
            return Stats("planned reads of this reader (read_ranges, iter_ranges)", self._counts)

    def tell(self, path: str, ranges: int, began: float) -> None:
        """Tell who listens that a call is complete which counted here alone."""
        counted = self.as_dict()
        told_ranges(path, ranges, counted["requests"], counted["bytes_fetched"], began)


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
    starts, stops = checked.demands()
    for index in planning.shorter(results, starts, stops):
        start = int(starts[index])
        error = ended_early(path, origin + start, int(stops[index]) - start, len(results[index]))
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
    layout: Layout, fetching: "Callable[..., Awaitable[list[Buffer]]]", options: Options
) -> "tuple[Layout, list[Buffer]]":
    """Like `fetch`. fetching: that of the Source.

    Not shared with it: an exception of a signal handler could leave a shared coroutine unawaited.
    """

    def send(layout: Layout) -> "Awaitable[list[Buffer]]":
        how = {"chunk": options.chunk, "concurrent": options.concurrent}
        return fetching(layout.starts, layout.lengths, **how)

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
        if error.index is not None:
            error.index = layout.served_by(error.index)
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
        self._order, self._firsts = ([], [0, 0]) if layout.is_plain else layout.members()
        self.empty = self._order[self._firsts[-2] :]
        self._again: list[int] = []

    def take(self, request: int, response: "Buffer | Error") -> list[tuple[int, Any]]:
        """(index, result) of each range of one request; none of those that are to be asked again (see `fetch`)."""
        layout = self.layout
        if layout.is_plain:
            indices = [request]
        else:
            indices = self._order[self._firsts[request] : self._firsts[request + 1]]
        if isinstance(response, Error):
            return self._fail(indices, response)
        responses = pieces = [response]
        if len(indices) > 1:
            origin = int(layout.starts[request])
            pieces = planning.cut(response, origin, indices, layout.wanted_starts, layout.wanted_stops)
        self._counters.count(responses, pieces)
        return [(self._known(index), piece) for index, piece in zip(indices, pieces, strict=True)]

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
