"""The pages of a bucket listing: those of the XML API are of S3's form, those of the JSON API are read here."""

import json
from collections.abc import Iterable
from typing import Any

from rangeio.errors import UnexpectedError
from rangeio.http.listing import MOST_ENTRIES, MOST_OF_A_PAGE, Page, nanoseconds, size_of
from rangeio.s3 import listing
from rangeio.service import Stat


def parse_page(body: bytes | memoryview, secrets: Iterable[str] = ()) -> Page:
    """Parse a response of either API. UnexpectedError if it is none. Paths are keys; prefixes have no size."""
    if bytes(body[:1]) != b"{":
        return listing.parse_page(body, secrets)
    if len(body) >= MOST_OF_A_PAGE:
        raise UnexpectedError(f"the response to a listing has {MOST_OF_A_PAGE >> 20} MiB or more")
    try:
        found = json.loads(bytes(body))
        objects, prefixes = found.get("items") or [], found.get("prefixes") or []
        if len(objects) + len(prefixes) > MOST_ENTRIES:
            raise UnexpectedError(f"the response to a listing has more than {MOST_ENTRIES:,} entries")
        entries = [_stat(entry) for entry in objects]
        entries += [Stat(_text(prefix), None, is_prefix=True) for prefix in prefixes]
        after = found.get("nextPageToken")
        return Page(sorted(entries, key=lambda stat: stat.path), None if after is None else _text(after))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnexpectedError("the response to a listing is not a listing of Cloud Storage") from None


def _stat(entry: dict[str, Any]) -> Stat:
    """Its ETag is not told: that of the JSON API is of the metadata."""
    size, generation = size_of(str(entry["size"])), entry.get("generation")
    return Stat(
        _text(entry["name"]),
        size,
        pin=f"{generation}:{size}" if generation else str(size),
        mtime_ns=nanoseconds(str(entry.get("updated", ""))),
        version=None if generation is None else _text(str(generation)),
    )


def _text(found: object) -> str:
    if not isinstance(found, str) or not found:
        raise ValueError("not a text")
    return found
