"""One request and its response on one connection, as a state machine without I/O.

Whoever has the socket asks for `space()`, receives into it, and tells how much came. The body goes straight to where
the judge of the head said: it is written once, by the kernel or by TLS. Only what came with the head is copied.
"""

from collections.abc import Callable
from dataclasses import dataclass

from _uring import Expected
from rangeio.http.heads import BadResponse, Chunks, Head, parse_head

# What one receive of a head may bring along of the body: small bodies come whole, large ones are copied no further.
SCRATCH = 8192
# Few interim responses (100 Continue, 103 Early Hints) come before a response, if any. A server that goes on with them
# is never silent, so no time limit but that of the whole read would end it.
_MOST_HINTS = 16
# More than this after the wanted bytes is not read: a new connection costs less.
_DRAIN = 65_536


@dataclass(slots=True)
class Plain:
    """A response that need not be judged: that of `start` to `stop` as `expected`. place: gives its memory, once."""

    expected: Expected
    start: int
    stop: int
    place: Callable[[], memoryview]


class ConnectionEnded(Exception):
    """The connection ended before the response did."""


@dataclass(slots=True)
class Body:
    """What to do with a body: throw `skip` bytes away, fill `memory`, throw the rest away.

    grow: gives room for so many bytes to a body of unknown length; or for fewer, and there the response is over.
    whole: a body that ends before it has filled `memory` contradicts its head.
    """

    memory: memoryview
    skip: int = 0
    grow: Callable[[int], memoryview] | None = None
    whole: bool = False


_NOTHING = Body(memoryview(bytearray()))
# In place of the head of a plain response, of which nothing more is wanted.
_PLAIN = Head(206, {}, None, False, False)


class ResponseParser:
    """Made for one request; `done` once its response is complete, then `reusable` says whether the connection is.

    judge: decides on the head, once, unless it is that of a `plain` response; what it raises passes through `received`.
    filled: bytes of its memory so far.
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
        self._left: int | None = None  # of the body, None if not known
        self._end = 0
        self._chunks: Chunks | None = None
        self._body = _NOTHING
        self.bodiless = bodiless
        self.head: Head | None = None
        self.done = self.reusable = self.started = False

    @property
    def placed(self) -> int:
        """How many bytes of an object it has put where they belong. What a refusal says in its body is none."""
        return self.filled if self._body.whole or self._body.grow is not None else 0

    @property
    def is_plain(self) -> bool:
        """Whether its head was accepted as it was expected."""
        return self.head is _PLAIN

    @property
    def is_full(self) -> bool:
        """Whether all bytes that are wanted of it are there, though the end of the body may be missing."""
        if self._body.whole:
            return self.filled >= self._end
        wants_none = not self._end and not self._skip and self._body.grow is None
        return self.head is not None and wants_none

    def space(self) -> memoryview:
        """Where the next bytes should be put; never empty before it is `done`."""
        if self.head is None:
            return self._scratch[self._used :]
        if self._chunks is None and not self._skip and self.filled < self._end:
            # No more than the body has: there may be room for more where it is the text of a refusal.
            upto = self._end if self._left is None else min(self._end, self.filled + self._left)
            return self._body.memory[self.filled : upto]
        return self._scratch

    def received(self, count: int) -> None:
        """So many bytes are in what `space` gave; 0 at the end of the connection.

        Raises ConnectionEnded, BadResponse, and what the judge does.
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
        """As `received`, of bytes that have come already, until it is `done`."""
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
                raise BadResponse(f"more than {_MOST_HINTS} responses come before the response")
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
            self.reusable = False  # bytes that nobody asked for

    def _is_accepted(self, plain: Plain) -> bool:
        """Whether the head is plain, or may be once all of it is there. If not, it is for the judge."""
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
        """Whether all that was wanted is there, and what follows is not worth reading."""
        if self._skip or self.filled < self._end or self._left is None or self._left <= _DRAIN:
            return False
        self.reusable = False
        return True

    def _finish_if(self, over: bool) -> None:
        if not over:
            return
        if self._body.whole and self.filled < self._end:
            raise BadResponse(
                f"its body ends after {self.filled} of the {self._end} bytes that its head announces"
            )
        self.done = True

    def _count(self, count: int) -> None:
        """`count` bytes of a body with a length, or of one that ends with the connection, are dealt with."""
        if self._left is None:
            self._finish_if(self.filled >= self._end and not self._grown(1))
            return
        self._left -= count
        if self._left < 0:
            self.reusable, self._left = False, 0
        self._finish_if(self._left == 0 or self._too_much_left())

    def _take(self, view: memoryview) -> None:
        """Bytes of the body that lie in the scratch space."""
        if self._left is not None and len(view) > self._left:
            self.reusable = False  # more than it said; not ours
            view = view[: self._left]
        self._store(view)
        self._count(len(view))

    def _store(self, view: memoryview) -> bool:
        """Skip, then fill; whether some did not fit and was dropped."""
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
        """Whether there is room for `more` bytes now."""
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
                self.done, self.reusable = True, False  # full, and more follows
                return
        self.reusable = self.reusable and not self._chunks.surplus
        self._finish_if(self._chunks.ended)

    def _ended(self) -> None:
        self.reusable = False
        if self.head is not None and self._chunks is None and self._left is None:
            self._finish_if(True)  # the end of the connection is the end of this body
            return
        raise ConnectionEnded
