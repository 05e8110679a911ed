"""The twin of `_uring.http1`: checks whether a response head is plain. Same sources."""

import re

INCOMPLETE, NOT_PLAIN = 0, -1

# A complete head: "HTTP/1.1 206" and a reason that may be empty, then one field per line, without control characters.
_LINE = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD = re.compile(rb"HTTP/1\.1 206(?: [\t\x20-\x7e\x80-\xff]*)?\r\n(?:" + _LINE + rb")*\r\n")
# All occurrences of the fields that matter.
_NAMES = rb"content-length|content-range|content-encoding|connection|etag|last-modified|transfer-encoding"
_FIELDS = re.compile(rb"\r\n(" + _NAMES + rb"):[ \t]*([^\r]*)", re.IGNORECASE)
_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Expected:
    """See `Expected` in records.py."""

    __slots__ = ("encoding", "etag", "modified", "size")

    def __init__(self, size: int, etag: bytes | None, modified: bytes | None, encoding: bytes | None) -> None:
        self.size, self.etag, self.modified, self.encoding = size, etag, modified, encoding

    def accepts(self, head: bytes | bytearray | memoryview, start: int, stop: int) -> int:
        text = bytes(head)
        end = text.find(b"\r\n\r\n") + 4
        if end < 4:
            return INCOMPLETE
        if _HEAD.fullmatch(text, 0, end) is None:
            return NOT_PLAIN
        found: dict[bytes, bytes] = {}
        for name, value in _FIELDS.findall(text, 0, end):
            name = name.lower()
            if name in found:
                return NOT_PLAIN
            found[name] = value.rstrip(b" \t")
        return end if self._is_plain(found, start, stop) else NOT_PLAIN

    def _is_plain(self, found: dict[bytes, bytes], start: int, stop: int) -> bool:
        length = found.get(b"content-length", b"")
        span = _RANGE.fullmatch(found.get(b"content-range", b""))
        if span is None or not _LENGTH.fullmatch(length) or int(length) != stop - start:
            return False
        if (int(span[1]), int(span[2]), int(span[3])) != (start, stop - 1, self.size):
            return False
        if b"transfer-encoding" in found or found.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return False
        if found.get(b"content-encoding") != self.encoding or found.get(b"etag") != self.etag:
            return False
        strong = self.etag is not None and not self.etag.startswith((b"W/", b"w/"))
        return strong or found.get(b"last-modified") == self.modified


class RangeRequest:
    """See `RangeRequest` in records.py."""

    __slots__ = ("after", "before", "expected")

    def __init__(self, before: bytes, after: bytes, expected: Expected) -> None:
        self.before, self.after, self.expected = before, after, expected
