"""Pages of the listing of a folder. Source: huggingface_hub, hf_api.py."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rangeio.errors import UnexpectedError
from rangeio.service import Stat

_MOST_ENTRIES = 100_000
_LINK = re.compile(r'<([^<>]*)>\s*((?:;\s*[\w-]+\s*=\s*(?:"[^"]*"|[^",;\s]*)\s*)*)')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]* )?next(?: [^"]*)?"|next\b)', re.IGNORECASE)


def entries(body: bytes | memoryview) -> list[Stat]:
    """The files and folders of a page, sorted; a folder as a prefix that ends with a slash. UnexpectedError if it is
    not a listing.
    """
    try:
        found = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise _invalid() from None
    if not isinstance(found, list):
        raise _invalid()
    if len(found) > _MOST_ENTRIES:
        raise UnexpectedError(f"the response to a listing has more than {_MOST_ENTRIES:,} entries")
    return sorted((stat for entry in found for stat in _stats(entry)), key=lambda stat: stat.path)


def _stats(entry: Any) -> Iterator[Stat]:
    if not isinstance(entry, Mapping):
        raise _invalid()
    path, kind = entry.get("path"), entry.get("type")
    if not isinstance(path, str) or not path:
        raise _invalid()
    if kind == "directory":
        yield Stat(f"{path}/", None, is_prefix=True)
    elif kind == "file":
        # A large file has the hash of its content, which is its ETag; the one outside is that of its pointer in git.
        lfs = entry.get("lfs")
        large: Mapping[str, Any] = lfs if isinstance(lfs, Mapping) else {}
        size, name = large.get("size", entry.get("size")), large.get("oid", entry.get("oid"))
        if type(size) is not int or not 0 <= size < 2**63:
            raise UnexpectedError("the response to a listing contains an invalid size")
        etag = f'"{name}"' if isinstance(name, str) and name else None
        yield Stat(path, size, pin=f"{etag}:{size}" if etag else str(size), etag=etag)
    # Others, such as submodules, have no bytes.


def next_query(link: str) -> str | None:
    """The query of the next page, out of the field Link; None after the last page."""
    for target, parameters in _LINK.findall(link):
        if _NEXT.search(parameters):
            query: str = target.partition("?")[2].partition("#")[0]
            if not query:
                raise UnexpectedError(
                    "the listing has more pages, but the hub does not say how to request them"
                )
            return query
    return None


def _invalid() -> UnexpectedError:
    return UnexpectedError("the response to a listing is not a listing of the hub")
