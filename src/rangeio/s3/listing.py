"""The pages of a bucket listing (ListObjectsV2).

Source: Amazon S3 API Reference, ListObjectsV2.
"""

from collections.abc import Iterable
from urllib.parse import unquote_plus

from rangeio.errors import UnexpectedError
from rangeio.http.listing import MOST_ENTRIES, MOST_OF_A_PAGE, Page, nanoseconds, size_of
from rangeio.http.xml import read_xml
from rangeio.s3.responses import of_listing
from rangeio.service import Stat

# Maximum elements per entry, of which S3 sends about fifteen, and of other elements.
_MOST_OF_AN_ENTRY, _MOST_OTHERS = 50, 1_000
_ENTRIES = frozenset(["Contents", "CommonPrefixes"])
_OF_AN_ENTRY = frozenset(["Key", "Size", "LastModified", "ETag", "Prefix", "Generation"])
_OF_A_PAGE = frozenset(["EncodingType", "IsTruncated", "NextContinuationToken"])


def parse_page(body: bytes | memoryview, secrets: Iterable[str] = ()) -> Page:
    """Parse a response to ListObjectsV2. UnexpectedError if it is not one, and the error that a server sent with status
    200 in place of it. Paths are keys; prefixes have no size. secrets: strings that an error must not show.

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
        raise of_listing(bytes(body), secrets)
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
        self._objects: list[tuple[str, int, str, int | None, str]] = []
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
            modified = nanoseconds(entry.get("LastModified", ""))
            size = size_of(entry.get("Size", ""))
            generation = entry.get("Generation", "")  # Google's, which has listings of this form
            self._objects.append((entry.get("Key", ""), size, entry.get("ETag", ""), modified, generation))
        if len(self._objects) + len(self._prefixes) > MOST_ENTRIES:
            raise UnexpectedError(f"the response to a listing has more than {MOST_ENTRIES:,} entries")
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
                version=generation or None,
            )
            for key, size, etag, modified, generation in self._objects
        ]
        entries += [Stat(_key(prefix, encoded), None, is_prefix=True) for prefix in self._prefixes]
        return sorted(entries, key=lambda stat: stat.path)


def _key(text: str, encoded: bool) -> str:
    """A key as it is in the bucket. Amazon encodes a space as "+" and a plus as "%2B"."""
    return unquote_plus(text, errors="surrogateescape") if encoded else text
