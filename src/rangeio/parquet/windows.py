"""Windows of column chunks: what is fetched together, and the next two on their way while one is decoded."""

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rangeio.parquet.footers import ParquetObject

if TYPE_CHECKING:
    from _uring import Buffer

    Held = list[tuple[int, Buffer]]

_MOST_OBJECTS = 16
"""Objects in one window: each is read by a thread of its own."""
_SHARES = 16
"""Requests that a window is divided into over a network, so that all connections are busy."""
_LEAST_SHARE = 1 << 20


@dataclass
class Piece:
    """Columns of row groups of one file that are decoded together.

    names: the columns to decode. first, last: whether it begins and completes its row groups, of which other pieces may
    have other columns.
    """

    object: ParquetObject
    tag: Any
    row_groups: list[int]
    names: list[str]
    ranges: list[tuple[int, int]]
    first: bool = True
    last: bool = True

    def takes(self, other: "Piece") -> bool:
        """Whether the next piece is better decoded together with this one: it is more of the same columns."""
        whole = self.first and self.last and other.first and other.last
        return whole and other.object is self.object and other.names == self.names

    @property
    def nbytes(self) -> int:
        """Bytes of its column chunks."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass
class Sizes:
    """The size of windows in bytes: `first`, then doubling up to `most`."""

    first: int
    most: int


TABLE = Sizes(4 << 20, 32 << 20)
"""For a whole table."""
SCAN = Sizes(4 << 20, 16 << 20)
"""For batches."""

Window = list[Piece]


def windows(pieces: Iterable[Piece], sizes: Sizes) -> Iterator[Window]:
    """Put pieces into windows, in order. A larger piece is a window of its own."""
    size, total = sizes.first, 0
    window: Window = []
    for piece in pieces:
        objects = {id(other.object) for other in window} | {id(piece.object)}
        if window and (total + piece.nbytes > size or len(objects) > _MOST_OBJECTS):
            yield window
            size, window, total = min(2 * size, sizes.most), [], 0
        if window and window[-1].takes(piece):
            window[-1].row_groups += piece.row_groups
            window[-1].ranges += piece.ranges
        else:
            window.append(piece)
        total += piece.nbytes
    if window:
        yield window


@dataclass
class Request:
    """The chunks of one object in a window. options: of `Reader.iter_ranges`."""

    object: ParquetObject
    ranges: list[tuple[int, int]]
    options: dict[str, Any]


def requests_of(window: Window) -> list[Request]:
    """What a window reads of each object."""
    total = sum(piece.nbytes for piece in window)
    share = max(_LEAST_SHARE, -(-total // _SHARES))
    found: dict[int, Request] = {}
    for piece in window:
        # Local reads have no connections to keep busy, and their core splits them itself.
        options = {} if piece.object.reader.capability.positioned else {"chunk": share}
        found.setdefault(id(piece.object), Request(piece.object, [], options)).ranges.extend(piece.ranges)
    for request in found.values():
        request.ranges.sort()
    return [request for request in found.values() if request.ranges]


class _Fetch:
    """A Request, made by a thread."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._stopped = False
        self._error: BaseException | None = None
        self._held: Held | None = None
        # A daemon: a server that does not respond must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, daemon=True, name="rangeio-parquet")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._held = self._fetched()
        except BaseException as error:
            self._error = error

    def _fetched(self) -> "Held":
        request, found = self._request, {}
        responses = request.object.reader.iter_ranges(request.ranges, **request.options)
        with closing(cast("Generator[tuple[int, Buffer]]", responses)):
            for index, buffer in responses:
                found[index] = buffer
                if self._stopped:
                    return []
        return [(start, found[index]) for index, (start, _) in enumerate(request.ranges)]

    def result(self) -> "Held":
        """Wait for the bytes. Raises what the reads raised."""
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # breaks the cycle of frame and traceback
        if self._held is None:  # the thread stayed in the parent of this forked process
            return self._fetched()
        held, self._held = self._held, None
        return held

    def stop(self) -> None:
        """Send no more requests; what is in flight is discarded. Does not wait."""
        self._stopped = True


class _InFlight:
    """A window and what fetches it."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.fetches = {id(request.object): _Fetch(request) for request in requests_of(window)}

    def hold(self) -> None:
        """Wait, then put the bytes where the decoder finds them."""
        for piece in self.window:
            fetch = self.fetches.pop(id(piece.object), None)
            if fetch is not None:
                piece.object.file.hold(fetch.result())

    def stop(self) -> None:
        """Stop its requests."""
        for fetch in self.fetches.values():
            fetch.stop()


def fetched(pieces: Iterable[Piece], sizes: Sizes) -> Generator[Piece]:
    """The pieces in order, each when its bytes are there. Closing the iterator stops the requests.

    At most two windows are in flight or in use.
    """
    queue: list[_InFlight] = []
    coming = windows(pieces, sizes)
    try:
        while True:
            while len(queue) < 2 and (window := next(coming, None)) is not None:
                queue.append(_InFlight(window))
            if not queue:
                return
            queue[0].hold()
            window = queue[0].window
            for piece in window:
                yield piece
            for piece in window:
                piece.object.file.hold([])
            queue.pop(0)
    finally:
        for in_flight in queue:
            in_flight.stop()
