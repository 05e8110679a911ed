"""The response to one request, as a state machine without I/O.

The owner of the socket calls `space()`, receives into it, and calls `received(count)`. The body is received directly
into the memory that `judge` chose: the kernel or TLS writes it once. Only bytes that arrive with the head are copied.
"""

from collections.abc import Callable
from dataclasses import dataclass

from _uring import Expected
from rangeio.http.heads import BadResponse, Chunks, Head, parse_head

# Size of one receive of a head: small bodies arrive with it completely, and at most this much of a large one is copied.
SCRATCH = 8192
# Normally few or no interim responses (100 Continue, 103 Early Hints) precede a response. A server that keeps sending
# them is never silent, so only the time limit of the whole call would end the read.
_MOST_HINTS = 16
# If more than this follows the requested bytes, it is not read: a new connection costs less.
_DRAIN = 65_536


@dataclass(slots=True)
class Plain:
    """The plain response to a request for `start` to `stop`, which needs no `judge`. place: returns its memory."""

    expected: Expected
    start: int
    stop: int
    place: Callable[[], memoryview]


class ConnectionEnded(Exception):
    """The connection ended before the response did."""


@dataclass(slots=True)
class Body:
    """What to do with a body: discard `skip` bytes, fill `memory`, discard the rest.

    grow: returns memory for the given number of bytes of a body of unknown length; if it returns less, the response
    ends there. whole: a body that ends before it has filled `memory` contradicts its head.
    """

    memory: memoryview
    skip: int = 0
    grow: Callable[[int], memoryview] | None = None
    whole: bool = False


_NOTHING = Body(memoryview(bytearray()))
# Replaces the head of a plain response, which needs no further processing.
_PLAIN = Head(206, {}, None, False, False)


class ResponseParser:
    """The response to one request. `done` once it is complete; `reusable`: whether the connection can be used again.

    judge: called once with the head, unless the response is `plain`; `received` raises its exceptions. filled: bytes
    stored in its memory so far.
    """

    __slots__ = (
        "_body", "_chunks", "_end", "_hints", "_judge", "_left", "_plain", "_scratch", "_skip", "_used", "bodiless",
        "done", "filled", "head", "reusable", "started",
    )  # fmt: skip

    def __init__(
        self,
        scratch: memoryview,
        judge: Callable[[Head], Body],
        *,
        bodiless: bool = False,
        plain: Plain | None = None,
    ) -> None:
        self._scratch = scratch
        self._judge = judge
        self._plain = plain
        self._used = self._skip = self._hints = self.filled = 0
        self._left: int | None = None  # remaining bytes of the body, None if not known
        self._end = 0
        self._chunks: Chunks | None = None
        self._body = _NOTHING
        self.bodiless = bodiless
        self.head: Head | None = None
        self.done = self.reusable = self.started = False

    @property
    def placed(self) -> int:
        """The number of bytes of the object it has stored. The body of a refusal does not count."""
        return self.filled if self._body.whole or self._body.grow is not None else 0

    @property
    def is_plain(self) -> bool:
        """Whether its head was accepted as plain."""
        return self.head is _PLAIN

    @property
    def is_full(self) -> bool:
        """Whether all requested bytes are stored, even if the end of the body is missing."""
        if self._body.whole:
            return self.filled >= self._end
        wants_none = not self._end and not self._skip and self._body.grow is None
        return self.head is not None and wants_none

    def space(self) -> memoryview:
        """The memory for the next bytes; never empty before it is `done`."""
        if self.head is None:
            return self._scratch[self._used :]
        if self._chunks is None and not self._skip and self.filled < self._end:
            # At most the rest of the body: the memory for the text of a refusal may be larger.
            upto = self._end if self._left is None else min(self._end, self.filled + self._left)
            return self._body.memory[self.filled : upto]
        return self._scratch

    def received(self, count: int) -> None:
        """Process `count` bytes in the memory from `space`; 0 at the end of the connection.

        Raises ConnectionEnded, BadResponse, and the exceptions of `judge`.
        """
        if not count:
            self._ended()
            return
        self.started = True
        if self.head is None:
            self._read_head(count)
        elif self._chunks is not None:
            self._unchunk(self._scratch[:count])
        elif self._skip or self.filled >= self._end:
            self._take(self._scratch[:count])
        else:
            self.filled += count
            self._count(count)

    def feed(self, data: bytes) -> None:
        """Like `received`, for bytes that have already been received elsewhere, until it is `done`."""
        at = 0
        while at < len(data) and not self.done:
            space = self.space()
            piece = data[at : at + len(space)]
            space[: len(piece)] = piece
            self.received(len(piece))
            at += len(piece)

    def _read_head(self, count: int) -> None:
        self._used += count
        if self._plain is not None and self._is_accepted(self._plain):
            return
        while self.head is None:
            data = bytes(self._scratch[: self._used])
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if self._used == len(self._scratch):
                    raise BadResponse(f"the head of the response is longer than {len(self._scratch)} bytes")
                return
            head = parse_head(data[:end])
            rest = self._used - end - 4
            self._scratch[:rest] = data[end + 4 :]
            self._used = rest
            if head.status >= 200:
                self.head = head
            elif (hints := self._hints + 1) > _MOST_HINTS:
                raise BadResponse(f"more than {_MOST_HINTS} interim responses")
            else:
                self._hints = hints
        self._begin_body(self.head)
        if self._used and not self.done:
            first = self._scratch[: self._used]
            if self._chunks is None:
                self._take(first)
            else:
                self._unchunk(first)
        elif self._used:
            self.reusable = False  # unsolicited bytes

    def _is_accepted(self, plain: Plain) -> bool:
        """Whether the head is plain, or may be once it is complete. If not, `judge` decides."""
        end = plain.expected.accepts(self._scratch[: self._used], plain.start, plain.stop)
        if end > 0:
            self.head, self.reusable = _PLAIN, True
            self._body = Body(plain.place(), whole=True)
            self._left = self._end = plain.stop - plain.start
            if self._used > end:
                self._take(self._scratch[end : self._used])
            return True
        if end == 0 and self._used < len(self._scratch):
            return True
        self._plain = None
        return False

    def _begin_body(self, head: Head) -> None:
        bodiless = self.bodiless or head.status in (204, 304)
        self._body = self._judge(head)
        self.reusable = not head.closing
        if bodiless:
            self._body, head.length, head.chunked = _NOTHING, 0, False
        self._skip, self._end = self._body.skip, len(self._body.memory)
        if head.chunked:
            self._chunks = Chunks()
            return
        self._left = head.length
        if self._left is None:
            self.reusable = False
            self._finish_if(self._left is None and not self._end and not self._body.grow)
        else:
            self._finish_if(self._left == 0 or self._too_much_left())

    def _too_much_left(self) -> bool:
        """Whether all requested bytes are stored and the rest is not worth reading."""
        if self._skip or self.filled < self._end or self._left is None or self._left <= _DRAIN:
            return False
        self.reusable = False
        return True

    def _finish_if(self, over: bool) -> None:
        if not over:
            return
        if self._body.whole and self.filled < self._end:
            raise BadResponse(
                f"its body ends after {self.filled} of the {self._end} bytes that the head announces"
            )
        self.done = True

    def _count(self, count: int) -> None:
        """Count `count` processed bytes of a body with a length, or of one that ends with the connection."""
        if self._left is None:
            self._finish_if(self.filled >= self._end and not self._grown(1))
            return
        self._left -= count
        if self._left < 0:
            self.reusable, self._left = False, 0
        self._finish_if(self._left == 0 or self._too_much_left())

    def _take(self, view: memoryview) -> None:
        """Process bytes of the body in the scratch space."""
        if self._left is not None and len(view) > self._left:
            self.reusable = False  # more than announced: not part of this response
            view = view[: self._left]
        self._store(view)
        self._count(len(view))

    def _store(self, view: memoryview) -> bool:
        """Skip, then store; returns whether some bytes did not fit and were dropped."""
        skipped = min(self._skip, len(view))
        self._skip -= skipped
        view = view[skipped:]
        if view and self.filled + len(view) > self._end:
            self._grown(self.filled + len(view) - self._end)
        taken = view[: self._end - self.filled]
        self._body.memory[self.filled : self.filled + len(taken)] = taken
        self.filled += len(taken)
        return len(taken) < len(view)

    def _grown(self, more: int) -> bool:
        """Get memory for `more` bytes; returns whether it is there."""
        if self._body.grow is None:
            return False
        had = self._end
        memory = self._body.grow(had + more)
        self._body.memory, self._end = memory, len(memory)
        return self._end > had

    def _unchunk(self, view: memoryview) -> None:
        assert self._chunks is not None
        for run in self._chunks.feed(view):
            if self._store(run):
                self.done, self.reusable = True, False  # the memory is full, and more follows
                return
        self.reusable = self.reusable and not self._chunks.surplus
        self._finish_if(self._chunks.ended)

    def _ended(self) -> None:
        self.reusable = False
        if self.head is not None and self._chunks is None and self._left is None:
            self._finish_if(True)  # this body ends with the connection
            return
        raise ConnectionEnded
