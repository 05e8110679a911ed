"""What a file object fetches and keeps: read-ahead for sequential reads, and the end of the object."""

import threading
from typing import Any

from rangeio.locks import begin_lock
from rangeio.ranges import Suffix
from rangeio.reader import Reader
from rangeio.service import FAR, NEAR

TAIL = 64 << 10
"""Bytes that are fetched to learn the size: what pyarrow reads for a footer, and a third of a round trip's worth."""
PEEK = 8 << 10
"""The most that `peek` returns: a copy of it is made for each line."""
_GROWTH = 4
# More than this is worth several connections, of which each gets at least a MiB.
_PIECE, _LARGE, _CHUNK = 1 << 20, 2 << 20, 8 << 20
CONNECTIONS = 16
"""The default number of requests in flight of one read."""


def spread_over(total: int) -> dict[str, int]:
    """The option `chunk` with which so many bytes use all connections; none if they are few."""
    if total <= _LARGE:
        return {}
    return {"chunk": min(_CHUNK, max(_PIECE, -(-total // CONNECTIONS)))}


class Blocks:
    """Bytes of one Reader at any position. Thread-safe: no lock is held while a request is on its way.

    most: maximum bytes of read-ahead, 0 for none; None for the default. spread: whether large reads are cut so that
    they use all connections, rather than by the Reader's `chunk`. The size is not asked for: it comes with the
    first response, or with the last bytes of the object when it is needed first.
    """

    _lock: threading.RLock

    def __init__(self, reader: Reader, most: int | None, *, spread: bool = True) -> None:
        begin_lock(self)
        self.reader = reader
        self.far = not reader.capability.positioned
        self._spread = spread and self.far
        ahead = FAR if self.far else NEAR
        self._most = ahead.most if most is None else most
        self._first = min(ahead.first, self._most)
        self._span = self._first
        self._next = -1
        self._answered = False  # a response has told the size
        self._size: int | None = None if self.far else reader.size
        self._ahead: tuple[int, Any] = (0, b"")
        self.tail: tuple[int, Any] = (0, b"")
        """The last bytes of the object, and where they begin; nothing until they were read."""

    def size(self, at_least: int = 0) -> int:
        """The size. If it is not known yet, the last bytes are requested, `at_least` so many, and kept."""
        if self._size is None:
            known = self.reader.size if self._answered else self._fetch_tail(at_least) if self.far else None
            self._size = len(self.reader.read_range()) if known is None else known
        return self._size

    def _fetch_tail(self, at_least: int) -> int:
        data = self.reader.read_range(Suffix(min(max(TAIL, at_least), _CHUNK)))
        size = self.reader.size or 0
        with self._lock:
            self.tail = (size - len(data), data)
        return size

    def read(self, at: int, count: int) -> Any:
        """`count` bytes from `at`, fewer only at the end: a Buffer or bytes."""
        if self._size is not None:
            count = max(0, min(count, self._size - at))
        if count == 0:
            return b""
        with self._lock:
            found = _within(self.tail, at, count)
            if found is None:
                found = _within(self._ahead, at, count)
            start, held = self._ahead
            head = held[at - start :] if found is None and start <= at < start + len(held) else b""
            sequential, self._next = at == self._next, at + count
            if found is not None:
                return found
            self._span = min(self._span * _GROWTH, self._most) if sequential else self._first
            span = self._span
        data = self._request(at + len(head), max(count - len(head), span))
        self._keep(at + len(head), data, max(count - len(head), span), count - len(head))
        part = data[: count - len(head)] if len(data) > count - len(head) else data
        return b"".join((head, part)) if len(head) else part

    def peek(self, at: int, count: int) -> Any:
        """What is held from `at` on; if that is nothing, `count` bytes are read as by the next read."""
        with self._lock:
            for start, held in (self._ahead, self.tail):
                if start <= at < start + len(held):
                    return held[at - start :][:PEEK]
            before = self._next
        data = self.read(at, count)
        with self._lock:
            self._next = at if before == at else -1
            start, held = self._ahead
            return held[at - start :][:PEEK] if start <= at < start + len(held) else data

    def _request(self, at: int, count: int) -> Any:
        if options := self.options_for(count):
            return self.reader.read_ranges([(at, at + count)], **options)[0]
        return self.reader.read_at(at, count)

    def _keep(self, at: int, data: Any, asked: int, wanted: int) -> None:
        with self._lock:
            self._answered = True
            if len(data) < asked and len(data) and self._size is None:
                self._size = at + len(data)
            if self._most and len(data) > wanted:
                self._ahead = (at, data)
            if at + len(data) == self._size and len(data) >= len(self.tail[1]) and len(data) <= _CHUNK:
                self.tail = (at, data)

    def options_for(self, total: int) -> Any:
        """Options of a read of so many bytes."""
        return spread_over(total) if self._spread else {}

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._ahead = self.tail = (0, b"")


def _within(block: tuple[int, Any], at: int, count: int) -> Any:
    start, held = block
    if not start <= at or at + count > start + len(held):
        return None
    return held[at - start : at - start + count]
