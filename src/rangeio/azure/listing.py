"""The pages of the listing of a container (List Blobs).

Source: Microsoft Learn, "List Blobs".
"""

from collections.abc import Mapping
from urllib.parse import unquote

from rangeio.errors import UnexpectedError
from rangeio.http.listing import MOST_ENTRIES, MOST_OF_A_PAGE, Page, nanoseconds, size_of
from rangeio.http.xml import read_xml
from rangeio.service import Stat

# Maximum elements per entry, of which Azure sends about forty, and of other elements.
_MOST_OF_AN_ENTRY, _MOST_OTHERS = 200, 1_000
_PROPERTIES = frozenset(["Content-Length", "Last-Modified", "Etag", "ResourceType"])
_WRONG = "the response to a listing is not a listing of Azure"


def parse_page(body: bytes | memoryview) -> Page:
    """Parse a response to List Blobs. UnexpectedError if it is not one. Paths are names of blobs; prefixes have no
    size. Directories of a hierarchical namespace, which are listed like blobs, are left out.
    """
    if len(body) >= MOST_OF_A_PAGE:
        raise UnexpectedError(f"the response to a listing has {MOST_OF_A_PAGE >> 20} MiB or more")
    found = _Found()
    try:
        read_xml(body, found.ended, begun=found.begun)
    except ValueError:
        raise UnexpectedError(_WRONG) from None
    if found.root != "EnumerationResults":
        raise UnexpectedError(_WRONG)
    return Page(sorted(found.entries, key=lambda stat: stat.path), found.after or None)


class _Found:
    """The content of a page while it is parsed. root: the outermost element."""

    def __init__(self) -> None:
        self.root = self.after = ""
        self.entries: list[Stat] = []
        self._entry: dict[str, str] = {}
        self._encoded = False
        self._allowed = _MOST_OTHERS

    def begun(self, name: str, attributes: Mapping[str, str]) -> None:
        """Process the start of an element. A name that XML cannot represent is percent-encoded, and says so."""
        if name == "Name":
            self._encoded = attributes.get("Encoded") == "true"

    def ended(self, path: tuple[str, ...], text: str) -> None:
        """Process the end of an element."""
        depth, name = len(path), path[-1]
        if depth == 4 and name == "Name":
            self._entry[name] = unquote(text, errors="surrogateescape") if self._encoded else text
        elif depth == 5 and name in _PROPERTIES and path[3] == "Properties":
            self._entry[name] = text
        elif depth == 3 and name in ("Blob", "BlobPrefix"):
            self._add(name, self._entry)
            self._entry = {}
        elif depth == 2 and name == "NextMarker":
            self.after = text
        elif depth == 1:
            self.root = name
        self._allowed -= 1
        if not self._allowed:
            raise ValueError("more elements than a listing can have")

    def _add(self, kind: str, entry: Mapping[str, str]) -> None:
        self._allowed += _MOST_OF_AN_ENTRY
        if kind == "BlobPrefix":
            self.entries.append(Stat(entry.get("Name", ""), None, is_prefix=True))
        elif entry.get("ResourceType") != "directory":
            size, etag = size_of(entry.get("Content-Length", "")), entry.get("Etag", "")
            if etag and not etag.startswith('"'):
                etag = f'"{etag}"'  # as in the response to a read
            modified = nanoseconds(entry.get("Last-Modified", ""))
            pin = f"{etag}:{size}" if etag else str(size)
            self.entries.append(
                Stat(entry.get("Name", ""), size, pin=pin, mtime_ns=modified, etag=etag or None)
            )
        if len(self.entries) > MOST_ENTRIES:
            raise UnexpectedError(f"the response to a listing has more than {MOST_ENTRIES:,} entries")
