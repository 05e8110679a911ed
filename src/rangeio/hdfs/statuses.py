"""What WebHDFS tells about files: responses to GETFILESTATUS and LISTSTATUS_BATCH. Parsing only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rangeio.errors import UnexpectedError

MOST_OF_A_STATUS = 64 << 10
"""Maximum bytes of a response to GETFILESTATUS."""
MOST_OF_A_PAGE = 32 << 20
"""Maximum bytes of a page of a listing. Name nodes send 1,000 entries a page (dfs.ls.limit)."""
_MOST_ENTRIES = 200_000


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One file or directory. name: within its directory. file_id: None if the server (HttpFS) does not tell. is_empty:
    a directory without entries.
    """

    name: str
    directory: bool
    size: int
    modified_ms: int
    file_id: int | None = None
    is_empty: bool = False

    @property
    def pin(self) -> str:
        """Identifies this version. A file that is written again has another fileId, even in the same millisecond; a
        file that grows keeps it.
        """
        parts = [] if self.file_id is None else [self.file_id]
        return ":".join(map(str, [*parts, self.modified_ms, self.size]))


def parse_status(body: "bytes | memoryview") -> FileStatus:
    """Parse a response to GETFILESTATUS. UnexpectedError if it is not one."""
    return _status(_json(body, "FileStatus"))


def parse_page(body: "bytes | memoryview") -> tuple[list[FileStatus], bool]:
    """The entries of a page of a directory, in the order of the server, and whether there are more."""
    listing = _json(body, "DirectoryListing")
    try:
        found = listing["partialListing"]["FileStatuses"]["FileStatus"]
        left = listing["remainingEntries"]
        if not isinstance(found, list) or not _is_count(left):
            raise TypeError
    except (LookupError, TypeError):
        raise UnexpectedError("HTTP 200: the response is not a listing of WebHDFS") from None
    if len(found) > _MOST_ENTRIES:
        raise UnexpectedError(f"the response to a listing has more than {_MOST_ENTRIES:,} entries")
    return [_status(entry) for entry in found], left > 0


def _json(body: "bytes | memoryview", name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(bytes(body))[name]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedError(f"HTTP 200: the response has no {name}: is this a WebHDFS server?")
    return found


def _status(entry: Any) -> FileStatus:
    try:
        name, kind = entry["pathSuffix"], entry["type"]
        size, modified = entry["length"], entry["modificationTime"]
    except (LookupError, TypeError):
        raise UnexpectedError("a FileStatus of the server is incomplete") from None
    file_id = entry.get("fileId")
    right = isinstance(name, str) and isinstance(kind, str) and _is_count(size) and _is_count(modified)
    if not right or not (file_id is None or _is_count(file_id)) or "/" in name:
        raise UnexpectedError("a FileStatus of the server has invalid values")
    # 0 is the root, or the fileId of a server that does not know it.
    empty = kind == "DIRECTORY" and entry.get("childrenNum") == 0
    return FileStatus(name, kind == "DIRECTORY", size, modified, file_id or None, empty)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
