"""The pages of a bucket listing (ListObjectsV2), and the detection of listings that do not end.

Source: Amazon S3 API Reference, ListObjectsV2.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus

from rangeio.errors import UnexpectedError
from rangeio.http.validation import http_date
from rangeio.s3.responses import Refused, parse_refusal
from rangeio.s3.xml import read_xml
from rangeio.service import Stat

MOST_OF_A_PAGE = 16 << 20
"""In bytes. A page of 1,000 keys of 1,024 quoted bytes is about 4 MB."""
# S3 sends at most 1,000; some servers send more.
_MOST_ENTRIES = 100_000
# Maximum elements per entry, of which S3 sends about fifteen, and of other elements.
_MOST_OF_AN_ENTRY, _MOST_OTHERS = 50, 1_000
# Consecutive pages without an entry. There may be some if many versions were deleted.
_MOST_EMPTY = 1_000
_MOST_DIGITS = 19
_ENTRIES = frozenset(["Contents", "CommonPrefixes"])
_OF_AN_ENTRY = frozenset(["Key", "Size", "LastModified", "ETag", "Prefix"])
_OF_A_PAGE = frozenset(["EncodingType", "IsTruncated", "NextContinuationToken"])


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in order. after: the token for the next page; None for the last page. refused: an error that
    the server sent with status 200 instead of a listing.
    """

    entries: list[Stat]
    after: str | None
    refused: Refused | None = None


def parse_page(body: bytes | memoryview) -> Page:
    """Parse a response to ListObjectsV2. UnexpectedError if it is not one. Paths are keys; prefixes have no size.

    Needs a few times the memory of the keys in it, whatever else it contains.
    """
    if len(body) >= MOST_OF_A_PAGE:
        raise UnexpectedError(f"the response to a listing has {MOST_OF_A_PAGE >> 20} MiB or more")
    found = _Found()
    try:
        read_xml(body, found.ended)
    except ValueError:
        raise UnexpectedError("the response to a listing is not a listing of S3") from None
    if found.root == "Error":
        return Page([], None, parse_refusal(bytes(body)))
    if found.root != "ListBucketResult":
        raise UnexpectedError("the response to a listing is not a listing of S3")
    after = found.texts.get("NextContinuationToken")
    if found.texts.get("IsTruncated") != "true":
        return Page(found.stats(), None)
    if not after:
        raise UnexpectedError("the listing has more pages, but the server sent no token for the next one")
    return Page(found.stats(), after)


class _Found:
    """The content of a page while it is parsed. root: the outermost element. texts: of its direct children."""

    def __init__(self) -> None:
        self.root = ""
        self.texts: dict[str, str] = {}
        self._entry: dict[str, str] = {}
        self._objects: list[tuple[str, int, str, int | None]] = []
        self._prefixes: list[str] = []
        self._allowed = _MOST_OTHERS

    def ended(self, path: tuple[str, ...], text: str) -> None:
        """Process the end of an element."""
        depth = len(path)
        if depth == 3:
            if path[2] in _OF_AN_ENTRY and path[1] in _ENTRIES:
                self._entry[path[2]] = text
        elif depth == 2 and path[1] in _ENTRIES:
            self._add(path[1], self._entry)
            self._entry = {}
        elif depth == 2 and path[1] in _OF_A_PAGE:
            self.texts.setdefault(path[1], text)
        elif depth == 1:
            self.root = path[0]
        self._allowed -= 1
        if not self._allowed:
            raise ValueError("more elements than a listing can have")

    def _add(self, kind: str, entry: dict[str, str]) -> None:
        if kind == "CommonPrefixes":
            self._prefixes.append(entry.get("Prefix", ""))
        else:
            modified = _nanoseconds(entry.get("LastModified", ""))
            size = _size(entry.get("Size", ""))
            self._objects.append((entry.get("Key", ""), size, entry.get("ETag", ""), modified))
        if len(self._objects) + len(self._prefixes) > _MOST_ENTRIES:
            raise UnexpectedError(f"the response to a listing has more than {_MOST_ENTRIES:,} entries")
        self._allowed += _MOST_OF_AN_ENTRY

    def stats(self) -> list[Stat]:
        """The entries, sorted by path. The element that says whether keys are encoded may follow them."""
        encoded = self.texts.get("EncodingType") == "url"
        entries = [
            Stat(
                _key(key, encoded),
                size,
                pin=f"{etag}:{size}" if etag else str(size),
                mtime_ns=modified,
                etag=etag or None,
            )
            for key, size, etag, modified in self._objects
        ]
        entries += [Stat(_key(prefix, encoded), None, is_prefix=True) for prefix in self._prefixes]
        return sorted(entries, key=lambda stat: stat.path)


def _key(text: str, encoded: bool) -> str:
    """A key as it is in the bucket. Amazon encodes a space as "+" and a plus as "%2B"."""
    return unquote_plus(text, errors="surrogateescape") if encoded else text


def _size(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS and int(digits) < 2**63):
        raise UnexpectedError("the response to a listing contains an invalid size")
    return int(digits)


_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:[Zz]|([+-]\d\d):?(\d\d))?", re.ASCII
)


def _nanoseconds(text: str) -> int | None:
    """Parse 2026-11-21T05:00:00.000Z, or a date in HTTP format (RFC 9110, section 5.6.7); without a time zone, UTC.
    None for an unreadable date, which does not end a listing.
    """
    text = text.strip()
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            date = http_date(text)
            return None if date is None else int(date) * 10**9
        zone = f"{match[4]}:{match[5]}" if match[4] else "+00:00"
        seconds = int(datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * 10**9 + int((match[3] or "").ljust(9, "0")[:9])


class Progress:
    """Checks that a listing makes progress; if not, raises UnexpectedError, as for redirect loops.

    Remembers one page and replaces it after 1, 2, 4, ... pages, which detects a loop of any length within three times
    its length. Source: R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980.
    """

    def __init__(self) -> None:
        self._token, self._ends = "", ("", "")
        self._since, self._most = 0, 1
        self._empty = 0

    def step(self, page: Page) -> None:
        """Check the next page."""
        if page.after is None:
            return
        entries = page.entries
        ends = (entries[0].path, entries[-1].path) if entries else ("", "")
        if page.after == self._token or (entries and ends == self._ends):
            raise UnexpectedError("the listing loops: the server sent the same page before")
        self._empty = 0 if entries else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise UnexpectedError(f"the listing does not end: {_MOST_EMPTY:,} pages without an entry")
        self._since += 1
        if self._since == self._most:
            self._token, self._ends = page.after, ends
            self._since, self._most = 0, self._most * 2
