"""Parts of listings that services over HTTP share: pages, sizes and dates in them, and listings that do not end."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rangeio.errors import UnexpectedError
from rangeio.http.validation import http_date
from rangeio.service import Stat

MOST_OF_A_PAGE = 16 << 20
"""In bytes. A page of 1,000 keys of 1,024 quoted bytes is about 4 MB."""
MOST_ENTRIES = 100_000
"""In one page. S3 sends at most 1,000, Azure 5,000; some servers send more."""
# Consecutive pages without an entry. There may be some if many versions were deleted.
MOST_EMPTY = 1_000
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in order. Paths are keys. after: what the request for the next page needs; None for the last
    page.
    """

    entries: list[Stat]
    after: Any | None


def size_of(text: str) -> int:
    """A size in a listing. UnexpectedError if it is not one."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS and int(digits) < 2**63):
        raise UnexpectedError("the response to a listing contains an invalid size")
    return int(digits)


_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:[Zz]|([+-]\d\d):?(\d\d))?", re.ASCII
)


def nanoseconds(text: str) -> int | None:
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

    def __init__(self, most_empty: int = MOST_EMPTY) -> None:
        """most_empty: the number of consecutive pages without an entry that are accepted."""
        self._most_empty = most_empty
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
        if self._empty > self._most_empty:
            raise UnexpectedError(f"the listing does not end: {self._most_empty:,} pages without an entry")
        self._since += 1
        if self._since == self._most:
            self._token, self._ends = page.after, ends
            self._since, self._most = 0, self._most * 2
