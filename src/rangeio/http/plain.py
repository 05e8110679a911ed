"""What a plain reply looks like: the range that was asked for, of the version that is known, and nothing else.

Nearly all replies are, and differ from each other in little but two numbers and the time. So a head is compared with
one that was taken apart and judged before, line by line, and taken apart itself only where a line that matters is
another.
Nothing is accepted here that `rules` would not accept. Pure.
"""

from rangeio.errors import Error
from rangeio.http import rules
from rangeio.http.heads import BadReply, parse_head

# What a judge of heads looks at, here and in `heads`, `rules` and `answers`. Other fields may say what they like.
_MATTERS = frozenset(
    [
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"connection",
        b"etag",
        b"last-modified",
        b"location",
        b"transfer-encoding",
    ]
)
# Of these the two numbers are new in each reply, and expected to be what was asked for.
_COUNTING = frozenset([b"content-length", b"content-range"])
_END = b"\r\n\r\n"


class Plain:
    """Replies for one known version, whose size is known. Any thread: what was learned is replaced as a whole."""

    __slots__ = ("_learned", "_version", "head_length", "size", "suffix")

    def __init__(self, version: rules.Version) -> None:
        assert version.size is not None
        self._version = version
        self._learned: tuple[frozenset[bytes], frozenset[bytes], bytes, bytes] | None = None
        self.size = version.size
        # What follows the range in a request.
        pin = f"\r\nIf-Match: {version.etag}" if version.etag else ""
        self.suffix = (pin + "\r\n\r\n").encode("latin-1")
        self.head_length = 0
        """Of the last head that was judged, its empty line included; 0 before."""

    def accepts(self, head: bytes, at: int, stop: int) -> bool:
        """Whether a head, without its empty line, announces just the bytes `at` to `stop`. Cost: 2 us."""
        if self._learned is None:
            return self._judged(head, at, stop)
        required, known, length_line, range_line = self._learned
        lines = set(head.split(b"\r\n"))
        new = lines - known
        try:
            new.remove(length_line % (stop - at))
            new.remove(range_line % (at, stop - 1))
        except KeyError:
            return self._judged(head, at, stop)
        if new:
            for line in new:
                name, colon, _ = line.partition(b":")
                if not colon or not name or b" " in name or b"\t" in name or name.lower() in _MATTERS:
                    return self._judged(head, at, stop)
                if b"\n" in line or b"\r" in line or b"\0" in line:
                    return self._judged(head, at, stop)
        return required <= lines or self._judged(head, at, stop)

    def _judged(self, head: bytes, at: int, stop: int) -> bool:
        """The same for a head that is of a new kind. If it is accepted, others of its kind are known from now on."""
        try:
            parsed = parse_head(head)
            first, last, total = rules.content_range(parsed)
            plain = (
                parsed.status == 206
                and not parsed.chunked
                and not parsed.closing
                and parsed.length == stop - at
                and (first, last, total) == (at, stop, self.size)
                and not self._version.difference(parsed, total)
                and rules.encoding_of(parsed) == self._version.encoding
            )
        except (BadReply, Error):
            return False
        if plain:
            self._learn(head)
        return plain

    def _learn(self, head: bytes) -> None:
        status, *fields = head.split(b"\r\n")
        names = {line: line.partition(b":")[0].lower() for line in fields}
        required = frozenset([status, *(line for line in fields if names[line] in _MATTERS - _COUNTING)])
        known = required | {line for line in fields if names[line] not in _MATTERS}
        found = {name: line.partition(b":") for line, name in names.items() if name in _COUNTING}
        length_line = found[b"content-length"][0] + b": %d"
        range_line = found[b"content-range"][0] + b": bytes %d-%d/" + str(self.size).encode()
        self.head_length = len(head) + len(_END)
        self._learned = required, known, length_line, range_line
