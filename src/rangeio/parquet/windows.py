"""Windows of column chunks: what is fetched together, and the next ones on their way while one is decoded."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from rangeio.parquet.footers import ParquetObject
from rangeio.threads import start_thread

if TYPE_CHECKING:
    from _uring import Buffer

    Held = list[tuple[int, Buffer]]

_MOST_OBJECTS = 16
"""Objects in one window: each is read by a thread of its own."""
_SHARES = 16
"""Requests that a window is divided into over a network, so that all connections are busy."""
_LEAST_SHARE = 1 << 20
_FORKED_S = 1.0
"""How often it is checked whether this is a forked process, which has none of the threads that are waited for."""
_TOGETHER = 1 << 20
"""Row groups of less are decoded together. Several large ones at once take a third more CPU: pyarrow's memory grows."""


@dataclass
class Piece:
    """Columns of row groups of one file that are decoded together.

    names: the columns to decode. first, last: whether it begins and completes its row groups, of which other pieces may
    have other columns. held: the bytes of `ranges` as (start, bytes), while they are in memory. Whoever has decoded it
    calls `release`, from any thread.
    """

    object: ParquetObject
    tag: Any
    row_groups: list[int]
    names: list[str]
    ranges: list[tuple[int, int]]
    first: bool = True
    last: bool = True
    held: "Held" = field(default_factory=list)
    room: "_Room | None" = None
    window: int = 0

    def release(self) -> None:
        """Let go of its bytes, and make room for others."""
        self.held = []
        if self.room is not None:
            self.room.give(self)

    def takes(self, other: "Piece") -> bool:
        """Whether the next piece is better decoded together with this one: it is more of the same columns."""
        whole = self.first and self.last and other.first and other.last
        small = self.nbytes + other.nbytes <= _TOGETHER
        return whole and small and other.object is self.object and other.names == self.names

    @property
    def nbytes(self) -> int:
        """Bytes of its column chunks."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass
class Sizes:
    """The size of windows in bytes: `first`, then doubling up to `most`. ahead: bytes that may be in flight or in use;
    two windows may in any case.
    """

    first: int
    most: int
    ahead: int = 0


TABLE = Sizes(4 << 20, 16 << 20, 64 << 20)
"""For a whole table, all of which is wanted: so much is requested at once."""
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

    def __init__(self, request: Request, room: "_Room") -> None:
        self._request, self._room = request, room
        self._stopped = self._done = False
        self._error: BaseException | None = None
        self._held: Held | None = None
        self._pid = os.getpid()
        start_thread(self._run)

    def _run(self) -> None:
        try:
            self._held = self._fetched()
        except BaseException as error:
            self._error = error
        self._done = True
        self._room.tell()

    @property
    def done(self) -> bool:
        """Whether there is a `result`: bytes, an error, or the knowledge that the thread is in the parent process."""
        return self._done or self._pid != os.getpid()

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
        """The bytes, once it is `done`. Raises what the reads raised."""
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


class _Room:
    """How much is in flight or in use. `give` and `tell` are called by any thread, the rest by the one that reads.

    No lock: in a forked process a lock would stay as it was, held by a thread that is not there.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._left: dict[int, int] = {}  # pieces by window
        self._bytes = self._taken = 0
        self._events: SimpleQueue[Piece | None] = SimpleQueue()

    def take(self, window: Window) -> bool:
        """Whether there is room for a window, which then takes it."""
        while not self._events.empty():
            self._handle(self._events.get())
        total = sum(piece.nbytes for piece in window)
        if len(self._left) >= 2 and self._bytes + total > self._ahead:
            return False
        self._taken += 1
        self._left[self._taken] = len(window)
        self._bytes += total
        for piece in window:
            piece.room, piece.window = self, self._taken
        return True

    def give(self, piece: Piece) -> None:
        """A piece needs no room any more."""
        self._events.put(piece)

    def tell(self) -> None:
        """A request is done."""
        self._events.put(None)

    def wait(self) -> None:
        """Wait until one of these two happens, or happened since the last call."""
        with suppress(Empty):
            self._handle(self._events.get(timeout=_FORKED_S))

    def _handle(self, event: Piece | None) -> None:
        if event is not None:
            self._bytes -= event.nbytes
            self._left[event.window] -= 1
            if not self._left[event.window]:
                del self._left[event.window]


class _InFlight:
    """A window and what fetches it."""

    def __init__(self, window: Window, room: _Room) -> None:
        self.window = window
        self._fetches = {id(request.object): _Fetch(request, room) for request in requests_of(window)}

    @property
    def done(self) -> bool:
        """Whether `hold` does not wait."""
        return all(fetch.done for fetch in self._fetches.values())

    def hold(self) -> None:
        """Wait, then give each piece its bytes."""
        found = {key: dict(fetch.result()) for key, fetch in self._fetches.items()}
        for piece in self.window:
            starts = sorted(start for start, _ in piece.ranges)
            piece.held = [(start, found[id(piece.object)].pop(start)) for start in starts]

    def stop(self) -> None:
        """Stop its requests."""
        for fetch in self._fetches.values():
            fetch.stop()


def fetched(pieces: Iterable[Piece], sizes: Sizes) -> Generator[Piece]:
    """The pieces in order, each when its bytes are there. Closing the iterator stops the requests.

    The next windows are requested as soon as pieces were released, while it waits too.
    """
    queue: deque[_InFlight] = deque()
    coming, room = windows(pieces, sizes), _Room(sizes.ahead)
    window: Window | None = None
    try:
        while True:
            while (window := window or next(coming, None)) and room.take(window):
                queue.append(_InFlight(window, room))
                window = None
            if queue and queue[0].done:
                queue[0].hold()
                yield from queue[0].window
                queue.popleft()
            elif queue or window:
                room.wait()
            else:
                return
    finally:
        for in_flight in queue:
            in_flight.stop()
